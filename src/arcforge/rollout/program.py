"""Rollouts made by an agent that is a program of its own, unmodified: a black box between a task's files and a model's API.

The program works in the episode's directory and finds the model behind the usual variables. What it sends is recorded by a
gateway behind HTTP (`rl.gateway_http`); when it has ended, the episode is graded as it stands.

    OPENAI_BASE_URL, OPENAI_API_BASE, OPENAI_API_KEY      OpenAI's chat
    ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY                 Anthropic's messages
    ARCFORGE_TASK_FILE                                    JSON: rollout_id, task_id, family, instruction, messages
    HOME                                                  an empty directory of the rollout's own
    NO_PROXY, no_proxy                                    loopback; and what `sandbox.program.KEPT` names, as it is here

{instruction} in the command is what the task's user says, {instruction_file} a file of it; without either it is the program's
stdin. What else a program needs of the environment, its command sets: `env HOME=/srv/agent NAME=value program`.

The program has this user's rights, and so has what the model makes it do: choose one that keeps its commands in a sandbox, or
start it in one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from arcforge.agents.loop import AgentRun
from arcforge.core.errors import AgentError, EngineError, RolloutTimeout, TaskError, UserError
from arcforge.core.messages import Message, Sampling, Thinking
from arcforge.core.protocols import Completer, ContextPolicy
from arcforge.core.tasks import Episode, Family, Task, Workspace
from arcforge.sandbox.folder import new_directory
from arcforge.sandbox.program import Program

INSTRUCTION, INSTRUCTION_FILE = "{instruction}", "{instruction_file}"
API_KEY = "none"
"""Any will do, and none is sent anywhere else: a client without one does not start."""
LOOPBACK = "127.0.0.1,localhost"


class Visit(Protocol):
    """A rollout's calls over HTTP. turns: that were answered. model_seconds: spent on all. problem: why the engine failed under
    the newest call, "" where it answered. refused: why the newest refused call was, "" where none was."""

    openai_url: str
    anthropic_url: str
    turns: int
    tool_calls: int
    prompt_tokens: int
    completion_tokens: int
    model_seconds: float
    problem: str
    refused: str

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation that was answered last."""
        ...


class VisitorsDoor(Protocol):
    """A gateway behind HTTP."""

    def admit(self, rollout_id: str, sampling: Sampling, thinking: Thinking) -> Visit:
        """Sample the calls of an open rollout so, whatever they ask for; a turn's length is theirs."""
        ...


@dataclass(frozen=True)
class ProgramAgent:
    """Plays episodes by running a command in their directories. Implements rollout.attempt.Agent."""

    argv: tuple[str, ...]
    door: VisitorsDoor

    async def __call__(
        self,
        task: Task,
        episode: Episode,
        completer: Completer,
        policy: ContextPolicy,
        sampling: Sampling,
        deadline: float,
        session: str,
    ) -> AgentRun:
        """Run it to its end. deadline: event-loop time (seconds).

        One that ends by itself is done, whatever its exit code: agents end with others than 0 where their model is at the end
        of its turns or its context. RolloutTimeout: it did not end. EngineError: the engine failed under its last call.
        AgentError: a signal ended it, or it ended before the model had said anything. What it wrote last is in their reasons.
        """
        if not isinstance(episode, Workspace):
            raise TaskError(f"{task.family}: no directory in which a program can work")
        visit = self.door.admit(session, sampling, task.thinking)
        with _told(task, session) as folder:
            argv, stdin = _given(self.argv, instruction(task), folder / "instruction.txt")
            seconds = deadline - asyncio.get_running_loop().time()
            async with Program(argv, episode.root, environment_of(visit, folder), stdin) as program:
                code = await program.wait(seconds)
        name, words = Path(argv[0]).name, f": {program.last_words}" if program.last_words else ""
        if code is None:
            raise RolloutTimeout(f"{name} did not end within {seconds:.1f} s{words}")
        ended = f"{name} ended with code {code}"
        if visit.problem:
            raise EngineError(f"{visit.problem}; then {ended}{words}")
        if not visit.turns:
            refused = f", its call refused ({visit.refused})" if visit.refused else ""
            raise AgentError(f"{ended} before the model had said anything{refused}{words}")
        if code < 0:
            raise AgentError(f"{name} was ended by signal {-code}{words}")
        return AgentRun(
            messages=list(visit.messages),
            stop_reason="exited" if code == 0 else "died",
            problem="" if code == 0 else ended,
            turns=visit.turns,
            tool_calls=visit.tool_calls,
            prompt_tokens=visit.prompt_tokens,
            completion_tokens=visit.completion_tokens,
            model_seconds=visit.model_seconds,
            output=program.last_words,
        )


def instruction(task: Task) -> str:
    """What the task's user says; how to behave is the program's own matter."""
    return "\n\n".join(message.content for message in task.messages if message.role == "user")


def environment_of(visit: Visit, folder: Path) -> dict[str, str]:
    """folder: of `_told`. A proxy that the command may name does not come between the program and the door."""
    return {
        "OPENAI_BASE_URL": visit.openai_url,
        "OPENAI_API_BASE": visit.openai_url,
        "OPENAI_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": visit.anthropic_url,
        "ANTHROPIC_API_KEY": API_KEY,
        "ARCFORGE_TASK_FILE": str(folder / "task.json"),
        "HOME": str(folder / "home"),
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }


def split(command: str) -> tuple[str, ...]:
    """The words of a command, as a shell splits them; its program by its whole path. UserError when there is no such here.

    It runs in the directory of a task: every other path in it has to be a whole one.
    """
    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        raise UserError(f"agent {command!r:.200}: {error}") from None
    found = shutil.which(argv[0]) if argv else None
    if found is None:
        raise UserError(f"agent {command!r:.200}: no such program here; name one on the PATH, or by its whole path")
    return (str(Path(found).absolute()), *argv[1:])


async def check_workspace(family: Family) -> None:
    """UserError when the family's episodes have no files on which a program could work. Opens one to see, closes both."""
    try:
        episode = await family.task("train", 0).open()
        await episode.close()
    finally:
        await family.close()
    if not isinstance(episode, Workspace):
        raise UserError(
            f"the tasks of {family.name} have no files on which an agent of its own could work; leave `agent` out"
        )


@contextmanager
def _told(task: Task, rollout_id: str) -> Iterator[Path]:
    """A folder outside of the directory that is worked on: task.json, instruction.txt, and home, which is empty."""
    fields = {
        "rollout_id": rollout_id,
        "task_id": task.task_id,
        "family": task.family,
        "instruction": instruction(task),
        "messages": [message.model_dump(mode="json", exclude_defaults=True) for message in task.messages],
    }
    folder = new_directory({"task.json": json.dumps(fields), "instruction.txt": instruction(task)})
    try:
        (folder / "home").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _given(argv: Sequence[str], text: str, file: Path) -> tuple[list[str], Path]:
    """The command with the instruction in its place, and the file that is its stdin."""
    filled = [part.replace(INSTRUCTION_FILE, str(file)).replace(INSTRUCTION, text) for part in argv]
    return filled, file if filled == list(argv) else Path(os.devnull)
