"""What admission asks of whoever runs a task: an image made once, attempts in fresh roots, and a verifier's run beside them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from arcforge.core.protocols import ExecResult
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.verdict import VerifierRun


class Attempt(Protocol):
    """One root, the environment's files in it."""

    async def act(self, script: str, files: Mapping[str, bytes] | None = None, timeout: float = 60.0) -> ExecResult:
        """Run a bash script as the agent, in the working directory; `files` are in /solution meanwhile. Nothing that it
        started outlives it. SandboxError: the machinery failed."""
        ...

    async def verify(self) -> VerifierRun:
        """Run the task's own tests, in another fresh root that has the agent's changes of the working directory only."""
        ...


class Image(Protocol):
    def attempt(self) -> AbstractAsyncContextManager[Attempt]: ...


class Runner(Protocol):
    def image(self, task: HarborTask) -> AbstractAsyncContextManager[Image]:
        """TaskError: the environment cannot be made."""
        ...
