"""`arcforge agent`: a model works with its tools on a copy of the user's folder; the result is a diff."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.openai import endpoint
from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.protocols import Completer, Completion, CompletionRequest, Verdict
from arcforge.core.tasks import Door
from arcforge.envs.local import LocalEpisode, LocalTask
from arcforge.evals.doors import CompleterDoor
from arcforge.pipeline.talk import checkpoint_of, load, printable
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine

AGENTIC_STAGE = "agentic_rl"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What an attempt came to. passed: None where there were no tests. tests: what the `test` tool answers at its end. written:
    files put back into the folder."""

    passed: bool | None
    tests: str
    diff: str
    written: tuple[str, ...] = ()


def agent(
    model: str,
    repo: Path,
    instruction: str,
    stage: str = "",
    *,
    name: str = "",
    apply: bool = False,
    test_command: str = "",
    attempts: int = 4,
    say: Say = print,
) -> bool:
    """Let a model try until the folder's own tests pass, at most `attempts` times; say each turn, then the diff.

    model: a run or checkpoint folder, whose small model gets its six tools, or the URL of an OpenAI-style endpoint, whose model
    `name` (the endpoint's first if not given; key: OPENAI_API_KEY) gets the standard ones and needs no tests. stage: of a run, by
    default agentic RL's, where there is one. The folder is written only with `apply`, and only when no test fails. Returns whether
    none does. UserError when the folder, the checkpoint or the endpoint will not do.
    """
    work = _endpoint(model, name) if "://" in model else _checkpoint(Path(model), stage)
    try:
        done = asyncio.run(work(repo, instruction, test_command, attempts, apply, say))
    except BoundaryError as error:
        raise UserError(f"{repo}: {error}") from None
    tell(done, apply, say)
    return done.passed is not False


def _checkpoint(run: Path, stage: str) -> Callable[..., Coroutine[Any, Any, Work]]:
    async def work(repo: Path, instruction: str, tests: str, attempts: int, apply: bool, say: Say) -> Work:
        task = LocalTask(repo, instruction, tests)
        engine, tokenizer = load(checkpoint_of(run, stage, preferred=AGENTIC_STAGE))
        door = Gateway(LocalTokenEngine(engine), tokenizer, engine.config.max_length)
        return await repair(task, door, attempts, apply, say)

    return work


def _endpoint(url: str, name: str) -> Callable[..., Coroutine[Any, Any, Work]]:
    async def work(repo: Path, instruction: str, tests: str, attempts: int, apply: bool, say: Say) -> Work:
        task = LocalTask.standard(repo, instruction, tests)
        completer = await endpoint(url, name)
        try:
            return await repair(task, CompleterDoor(completer), attempts, apply, say)
        finally:
            await completer.close()

    return work


async def repair(task: LocalTask, door: Door, attempts: int, apply: bool, say: Say) -> Work:
    """The first attempt whose tests pass, else the last one. Attempts differ in their seeds alone."""
    work = Work(False, "", "")
    for number in range(attempts):
        if number:
            say(f"\nthe tests still fail; attempt {number + 1} of {attempts}")
        work = await attempt(task, door, number, apply, say)
        if work.passed is not False:
            break
    return work


async def attempt(task: LocalTask, door: Door, number: int, apply: bool, say: Say) -> Work:
    """One run of the agent on a fresh copy, graded by the folder's tests as the agent left them."""
    rollout_id = f"agent-{number}"
    completer = door.open(rollout_id, task)
    try:
        episode = await task.open()
        try:
            spoken = Spoken(completer, episode, say)
            run = await run_agent(task, spoken, spoken, KeepAll(), Sampling(seed=number), session=rollout_id)
            if run.problem:
                say(f"   {run.problem}")
            verdict = await episode.grade(run.messages)
            passed = None if verdict.reward is None else verdict.reward == 1.0
            written = await episode.write_back() if passed is not False and apply else ()
            return Work(passed, str(verdict.details.get("tests", "")), await episode.diff(), tuple(written))
        finally:
            await episode.close()
    finally:
        door.close(rollout_id)


def tell(work: Work, apply: bool, say: Say) -> None:
    """The diff, and what became of it."""
    say("")
    say(work.diff.rstrip("\n") if work.diff else "nothing was changed")
    say("")
    told = {True: "the tests pass", False: f"the tests still fail: {work.tests}", None: work.tests}
    say(told[work.passed])
    if work.written:
        say(f"written: {', '.join(work.written)}")
    elif apply and work.passed is False and work.diff:
        say("nothing was written to the folder")


class Spoken:
    """A completer and an episode that say what passes through them, turn by turn."""

    def __init__(self, completer: Completer, episode: LocalEpisode, say: Say) -> None:
        self._completer, self._episode, self._say = completer, episode, say
        self._turn = 0

    async def complete(self, request: CompletionRequest) -> Completion:
        completion = await self._completer.complete(request)
        self._turn += 1
        message = completion.message
        for text in filter(None, (message.reasoning, message.content)):
            self._say(f"{self._turn:>2} {_indented(text)}")
        for call in message.tool_calls:
            self._say(f"{self._turn:>2} {call.name} {_arguments(call)}".rstrip())
        return completion

    @property
    def done(self) -> bool:
        return self._episode.done

    async def call(self, call: ToolCall) -> str:
        answer = await self._episode.call(call)
        self._say(f"   {_indented(answer)}")
        return answer

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        return await self._episode.grade(messages)

    async def close(self) -> None:
        await self._episode.close()


def _arguments(call: ToolCall) -> str:
    return " ".join(f"{key}={value!r}" for key, value in call.arguments.items())


def _indented(text: str) -> str:
    return printable(text).rstrip("\n").replace("\n", "\n   ")
