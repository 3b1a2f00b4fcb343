"""A user's own folder as a task: the agent works on a copy with the swe tools, and the result is a diff."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.agents.tools import TOOLS, Toolbox
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.prompts import SYSTEM
from arcforge.envs.swe.repository import TEST_FILE
from arcforge.envs.swe.task import MAX_TOKENS, MAX_TURNS, THINKING
from arcforge.envs.swe.testing import run_tests
from arcforge.sandbox.folder import diff, read_texts
from arcforge.sandbox.fork import ForkServer
from arcforge.sandbox.process import ProcessSandbox

TEST_SECONDS = 120.0
ANSWER_LINES = 12


@dataclass(frozen=True)
class LocalTask:
    """`instruction` on a copy of `folder`. Implements core.tasks.Task; the folder itself is never written.

    test_command: what the `test` tool runs (split like a shell does), graded by its exit code; empty for the folder's
    test.py of `assert f(x)==y` lines, answered as the swe family does. The code runs as this user under rlimits only.
    """

    folder: Path
    instruction: str
    test_command: str = ""
    task_id: str = "local"
    family: str = "local"
    domain: str = "repair"
    tools: tuple[ToolSpec, ...] = TOOLS
    thinking: Thinking = THINKING
    max_turns: int = MAX_TURNS
    max_tokens: int = MAX_TOKENS
    server: ForkServer = field(default_factory=ForkServer)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder; name the repository to work on")
        if not self.test_command and not (self.folder / TEST_FILE).is_file():
            raise UserError(f"{self.folder}: no {TEST_FILE} here; name the command that runs its tests")

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="system", content=SYSTEM), Message(role="user", content=self.instruction))

    async def open(self) -> LocalEpisode:
        return LocalEpisode(self)


class LocalEpisode:
    """One attempt on the copy. Implements core.tasks.Episode; `diff` tells what the agent changed."""

    def __init__(self, task: LocalTask) -> None:
        self._task = task
        self.sandbox = ProcessSandbox.copy_of(task.folder)
        self._before = read_texts(self.sandbox.root)
        self._tools = Toolbox(self.sandbox, self._test)

    @property
    def done(self) -> bool:
        return self._tools.done

    async def call(self, call: ToolCall) -> str:
        return await self._tools.call(call)

    def diff(self) -> str:
        """Unified diff from the folder as it was copied to the copy as it is now; `git apply` reads it."""
        return diff(self._before, read_texts(self.sandbox.root))

    def write_back(self) -> list[str]:
        """Put the files that the agent changed or made into the folder; their relative paths.

        UserError, and nothing is written, when one of them changed in the folder meanwhile. Line ends and permissions of
        a changed file stay as they were.
        """
        folder, after = self._task.folder, read_texts(self.sandbox.root)
        changed = [path for path in sorted(after) if after[path] != self._before.get(path)]
        now = read_texts(folder)
        for path in changed:
            if now.get(path) != self._before.get(path):
                raise UserError(f"{folder / path}: changed while the agent worked; nothing was written")
        for path in changed:
            _write(folder / path, after[path])
        return changed

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """1.0 iff the tests pass now. Edited tests count as edited: look at the diff."""
        passed, text = await self._run()
        return Verdict(reward=1.0 if passed else 0.0, details={"tests": text})

    async def close(self) -> None:
        """Delete the copy and end the fork server."""
        await self.sandbox.close()
        await self._task.server.close()

    async def _test(self) -> str:
        return (await self._run())[1]

    async def _run(self) -> tuple[bool, str]:
        """(passed, what the `test` tool answers)."""
        if not self._task.test_command:
            report = await run_tests(self._task.server, self.sandbox.root)
            return report.exit_code == 0 and not report.problem, report.answer()
        result = await self.sandbox.exec(shlex.split(self._task.test_command), TEST_SECONDS)
        if result.timed_out:
            return False, "timeout"
        lines = (result.stdout + result.stderr).strip().splitlines()
        return result.exit_code == 0, "\n".join(lines[-ANSWER_LINES:]) or f"exit code {result.exit_code}"


def _write(path: Path, text: str) -> None:
    """Replace a file's text, whole or not at all."""
    mode = path.stat().st_mode if path.exists() else 0o644
    crlf = path.exists() and b"\r\n" in path.read_bytes()
    atomic_write(path, text.replace("\n", "\r\n") if crlf else text)
    path.chmod(mode)
