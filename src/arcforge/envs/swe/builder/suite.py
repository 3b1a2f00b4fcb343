"""Runs chosen test files of a repository in a fresh checkout: a commit's tree with patches applied."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.checkouts import Checkout, Checkouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.setup import Setup

PROBE, PLUGIN = "arcforge_function_probe", ".arcforge-probe"
BUILD_SECONDS = 600.0
Entered = dict[str, list[tuple[str, int]]]
"""Test -> functions it enters, as (path, first line)."""


@dataclass(frozen=True)
class Suite:
    """A repository's tests: where they come from, what they run in and for how long at most (seconds per run)."""

    clone: Clone
    setup: Setup
    checkouts: Checkouts
    seconds: float = 120.0

    @contextmanager
    def tree(self, commit: str) -> Iterator[Path]:
        """A folder with the commit's files, for any number of runs; gone afterwards. What is built of it is built once, where checkouts
        can keep that. Rejected("does_not_build")."""
        with tempfile.TemporaryDirectory(prefix="arcforge-tree-", ignore_cleanup_errors=True) as scratch:
            root = Path(scratch) / "tree"
            root.mkdir()
            self.clone.export(commit, root)
            build = self.setup.build()
            if build is None:
                yield root
                return
            with self.checkouts.built(root, self.setup.folders, *build, BUILD_SECONDS):
                yield root

    def run(self, tree: Path, patches: Sequence[bytes], tests: Sequence[str]) -> SuiteRun:
        """Run test files on a copy of `tree` with `patches` applied in order. Rejected when it did not run as it should."""
        with self.open(tree) as checkout:
            for patch in patches:
                checkout.apply(patch)
            return self._read(checkout.run(*self.setup.command(checkout.root, tree, tests), self.seconds), tests)

    def entered(self, tree: Path, tests: Sequence[str]) -> tuple[SuiteRun, Entered]:
        """One run that also tells which functions every test enters, of a suite in Python."""
        with self.open(tree) as checkout:
            checkout.write(f"{PLUGIN}/{PROBE}.py", Path(__file__).with_name("function_probe.py").read_text("utf-8"))
            plugin = f"{checkout.root}/{PLUGIN}"
            command, environment = self.setup.command(checkout.root, tree, tests)
            environment["PYTHONPATH"] += f":{plugin}"
            environment["ARCFORGE_PROBE"] = f"{plugin}/entered.json"
            run = self._read(checkout.run([*command, "-p", PROBE], environment, self.seconds), tests)
            try:
                found = json.loads(checkout.read(f"{PLUGIN}/entered.json"))
            except (OSError, ValueError):
                raise Rejected("suite_did_not_run", "the probe reported nothing") from None
        places = [(path, line) for path, line in found["places"]]
        return run, {test: [places[index] for index in indices] for test, indices in found["tests"].items()}

    @contextmanager
    def open(self, tree: Path) -> Iterator[Checkout]:
        """A checkout of `tree` with the files that the project's build writes; gone afterwards."""
        with self.checkouts.open(tree, self.setup.folders) as checkout:
            for path, text in self.setup.absent(tree):
                checkout.write(path, text)
            yield checkout

    def within(self, seconds: float) -> Suite:
        """The same with another limit for one run."""
        return replace(self, seconds=seconds)

    def _read(self, result: ExecResult, tests: Sequence[str]) -> SuiteRun:
        if result.timed_out:
            raise Rejected("timeout", f"{self.seconds:.0f} s")
        return self.setup.read(result, tests)
