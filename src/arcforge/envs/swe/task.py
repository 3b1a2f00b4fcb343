"""A repair task and its episode: real files, real test runs, graded on a fresh copy with the tests restored."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.agents.tools import TOOLS, Toolbox
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.envs.swe.repository import TEST_FILE, Repository
from arcforge.envs.swe.testing import run_tests
from arcforge.sandbox.fork import ForkSandbox, ForkServer

# One mode at RL and evaluation, the one with the shortest turns; most demonstrations have it.
THINKING = Thinking(enabled=False)
MAX_TURNS = 12
MAX_TOKENS = 48


@dataclass(frozen=True)
class SweTask:
    """Implements core.tasks.Task."""

    task_id: str
    messages: tuple[Message, ...]
    repository: Repository
    server: ForkServer
    family: str = "swe"
    domain: str = "repair"
    tools: tuple[ToolSpec, ...] = TOOLS
    thinking: Thinking = THINKING
    max_turns: int = MAX_TURNS
    max_tokens: int = MAX_TOKENS

    async def open(self) -> SweEpisode:
        return SweEpisode(self.repository, self.server)


class SweEpisode:
    """One attempt in a directory of its own. Implements core.tasks.Episode and Workspace."""

    def __init__(self, repository: Repository, server: ForkServer) -> None:
        self._repository, self._server = repository, server
        self.sandbox = ForkSandbox(server, server.new_directory(repository.files))
        self._tools = Toolbox(self.sandbox, self._test)

    @property
    def root(self) -> Path:
        return self.sandbox.root

    @property
    def done(self) -> bool:
        return self._tools.done

    async def call(self, call: ToolCall) -> str:
        return await self._tools.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """1.0 iff the task's own tests pass on the agent's modules, whatever it did to the test file; else 0.0."""
        files = {module.path: await self._module_text(module.path) for module in self._repository.modules}
        copy = self._server.new_directory({**files, TEST_FILE: self._repository.files[TEST_FILE]})
        try:
            report = await run_tests(self._server, copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        passed = report.passes(self._repository.cases)
        return Verdict(reward=1.0 if passed else 0.0, details={"tests": report.answer(), "exit_code": report.exit_code})

    async def close(self) -> None:
        await self.sandbox.close()

    async def _test(self) -> str:
        return (await run_tests(self._server, self.sandbox.root)).answer()

    async def _module_text(self, path: str) -> str:
        """An unreadable module counts as an empty one."""
        try:
            return await self.sandbox.read(path)
        except (OSError, ValueError):
            return ""
