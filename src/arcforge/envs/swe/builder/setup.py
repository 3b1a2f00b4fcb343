"""What stands between a repository in any language and the machinery that measures it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.measurement import SuiteRun

Command = tuple[list[str], dict[str, str]]
"""(argv, environment)."""


class Setup(Protocol):
    """What a repository's tests run in, in one language (of layout.LAYOUTS). version: of Python's. requirements: what is installed
    besides, one a line with its exact version. options: what was found out about the suite. variables: NAME=VALUE that the suite asks
    for. commit: the one it was made for ("" when it was there already)."""

    @property
    def language(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def requirements(self) -> tuple[str, ...]: ...

    @property
    def options(self) -> tuple[str, ...]: ...

    @property
    def variables(self) -> tuple[str, ...]: ...

    @property
    def commit(self) -> str: ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """What of this machine its commands read besides the system."""
        ...

    def absent(self, tree: Path) -> list[tuple[str, str]]:
        """Files (path, text) that a tree lacks and its build would write."""
        ...

    def build(self) -> Command | None:
        """What every run of a tree does first and can take over from another run; None: nothing."""
        ...

    def command(self, root: str, tree: Path, tests: Sequence[str]) -> Command:
        """A run of test files, or of all where they cannot be chosen, where `tree`, or a copy of it, is seen at `root`."""
        ...

    def read(self, result: ExecResult, tests: Sequence[str]) -> SuiteRun:
        """What such a run said. Rejected when it did not run to its end, or its log contradicts itself."""
        ...
