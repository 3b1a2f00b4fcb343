"""A user's own folder as a task: the agent works on a copy with the swe tools or the standard ones, and the result is a diff."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.agents.repository_tools import repository_specs, repository_tools
from arcforge.agents.tools import TOOLS, Toolbox
from arcforge.agents.toolset import Toolset
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import FileChange, Sandbox, Verdict
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.prompts import SYSTEM
from arcforge.envs.swe.repository import TEST_FILE
from arcforge.envs.swe.task import MAX_TOKENS, MAX_TURNS, THINKING
from arcforge.envs.swe.testing import RUNNER, run_tests_in
from arcforge.sandbox.folder import copy_directory, own_work, read_texts
from arcforge.sandbox.host import bubblewrap_works, tell_once
from arcforge.sandbox.overlay import WORK, OverlaySandboxes
from arcforge.sandbox.process import ProcessSandbox
from arcforge.sandbox.unified import diff_of

TEST_SECONDS = 600.0
STANDARD_SYSTEM = (
    "You are a software engineer at work in a repository, which is the working directory. Find out what is there, make the "
    "change that you are asked for, check it by running code or tests, and submit. There is no network."
)
ANSWER_LINES = 12


@dataclass(frozen=True)
class LocalTask:
    """`instruction` on a copy of `folder`. Implements core.tasks.Task; the folder itself is never written.

    test_command: what the `test` tool runs (split like a shell does), graded by its exit code; empty for the folder's
    test.py of `assert f(x)==y` lines, answered as the swe family does. The code runs without network in an overlay over a copy,
    below which dependency folders and version control are seen where they are; where bubblewrap does not work, as this user on
    the copy alone, under rlimits only.
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
    system: str = SYSTEM

    @classmethod
    def standard(cls, folder: Path, instruction: str, test_command: str = "") -> LocalTask:
        """With the standard tools for repositories and room for a large model; a folder without tests will do too."""
        return cls(
            folder, instruction, test_command, tools=repository_specs(), thinking=Thinking(), max_turns=200,
            max_tokens=16_384, system=STANDARD_SYSTEM,
        )  # fmt: skip

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder; name the repository to work on")
        if self.tools is TOOLS and not self.test_command and not (self.folder / TEST_FILE).is_file():
            raise UserError(f"{self.folder}: no {TEST_FILE} here; name the command that runs its tests")

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="system", content=self.system), Message(role="user", content=self.instruction))

    async def open(self) -> LocalEpisode:
        if not bubblewrap_works():
            tell_once(
                "bubblewrap does not work here: the tests and commands run as this user on a copy; work on trusted code only"
            )
            return LocalEpisode(self, ProcessSandbox.copy_of(self.folder))
        boxes, copy = OverlaySandboxes(), copy_directory(self.folder)
        spec = boxes.host(self.folder)
        overlays = {**spec.overlays, WORK: (str(copy), *spec.overlays[WORK])}
        read_only = {**spec.read_only, str(RUNNER): str(RUNNER)}
        try:
            sandbox = await boxes.create(replace(spec, overlays=overlays, read_only=read_only))
        except BaseException:
            await boxes.close()
            shutil.rmtree(copy, ignore_errors=True)
            raise
        return LocalEpisode(self, sandbox, boxes, copy)


class LocalEpisode:
    """One attempt on the copy. Implements core.tasks.Episode; `diff` tells what the agent changed."""

    def __init__(
        self, task: LocalTask, sandbox: Sandbox, boxes: OverlaySandboxes | None = None, copy: Path | None = None
    ) -> None:
        """`sandbox`, `boxes`, of which it came, and `copy`, over which it lies, go with the episode."""
        self._task, self.sandbox, self._boxes, self._copy = task, sandbox, boxes, copy
        self._before = read_texts(task.folder)
        small = task.tools is TOOLS
        self._tools = Toolbox(sandbox, self._test) if small else Toolset(repository_tools(sandbox, sys.executable))

    @property
    def done(self) -> bool:
        return self._tools.done

    async def call(self, call: ToolCall) -> str:
        return await self._tools.call(call)

    async def changes(self) -> list[FileChange]:
        """What the agent changed, apart from version control, caches and dependency folders."""
        return own_work(await self.sandbox.changes())

    async def diff(self) -> str:
        """Unified diff from the folder to what the agent made of it; `git apply` reads it."""
        return diff_of(await self.changes())

    async def write_back(self) -> list[str]:
        """Put the files (no links) that the agent changed or made into the folder; their relative paths.

        UserError, and nothing is written, when one of them changed in the folder meanwhile. Line ends and permissions of
        a changed file stay as they were.
        """
        folder = self._task.folder
        changed = {c.path: c.after for c in await self.changes() if c.after is not None and not c.link}
        now = read_texts(folder)
        for path in changed:
            if now.get(path) != self._before.get(path):
                raise UserError(f"{folder / path}: changed while the agent worked; nothing was written")
        for path, text in changed.items():
            _write(folder / path, text)
        return list(changed)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """1.0 iff the tests pass now, no reward where there are none. Edited tests count as edited: look at the diff."""
        if not self._task.test_command and TEST_FILE not in await self.sandbox.files():
            return Verdict(reward=None, details={"tests": "no tests were named"})
        passed, text = await self._run()
        return Verdict(reward=1.0 if passed else 0.0, details={"tests": text})

    async def close(self) -> None:
        await self.sandbox.close()
        if self._boxes:
            await self._boxes.close()
        if self._copy:
            shutil.rmtree(self._copy, ignore_errors=True)

    async def _test(self) -> str:
        return (await self._run())[1]

    async def _run(self) -> tuple[bool, str]:
        """(passed, what the `test` tool answers)."""
        if not self._task.test_command:
            report = await run_tests_in(self.sandbox)
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
    atomic_write(path, text.replace("\r\n", "\n").replace("\n", "\r\n") if crlf else text)
    path.chmod(mode)
