"""Tasks answered in one turn without tools, and the splits that keep their problems apart.

A problem's split is decided by a hash of its content, so a problem can be in one split only, whatever the family seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Scorer, Verdict
from arcforge.core.tasks import Split

P = TypeVar("P")

MOST_DRAWS = 1000


def split_of(key: str) -> Split:
    """Eight tenths of all contents are train, one tenth dev, one tenth test."""
    bucket = hashlib.blake2b(key.encode(), digest_size=8).digest()[0] % 10
    return "dev" if bucket == 8 else "test" if bucket == 9 else "train"


def always(_: object) -> bool:
    return True


def draw(
    make: Callable[[random.Random], P],
    key: Callable[[P], str],
    split: Split,
    rng: random.Random,
    fits: Callable[[P], bool] = always,
) -> P:
    """The first problem drawn that belongs to the split and fits. TaskError when the generator has none there."""
    for _ in range(MOST_DRAWS):
        problem = make(rng)
        if split_of(key(problem)) == split and fits(problem):
            return problem
    raise TaskError(f"no problem of the split {split} that fits in {MOST_DRAWS} draws")


@dataclass(frozen=True)
class SingleTurnTask:
    """One request, one reply, graded by a Scorer with the task's reference. level: how hard it is meant to be; 0: not said."""

    task_id: str
    family: str
    domain: str
    messages: tuple[Message, ...]
    scorer: Scorer
    reference: dict[str, Any]
    thinking: Thinking = field(default_factory=Thinking)
    max_tokens: int = 64
    max_turns: int = 1
    tools: tuple[ToolSpec, ...] = ()
    level: int = 0

    async def open(self) -> SingleTurnEpisode:
        return SingleTurnEpisode(self)


class SingleTurnEpisode:
    """An attempt: nothing to run, everything is in the reply. A reply that calls tools is malformed and earns 0."""

    def __init__(self, task: SingleTurnTask) -> None:
        self._task = task
        self.done = False

    async def call(self, call: ToolCall) -> str:
        return f"there is no tool {call.name}; this task has no tools"

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        self.done = True
        if any(message.tool_calls for message in messages):
            return Verdict(reward=0.0, details={"malformed": "a tool was called where there is none"})
        return await self._task.scorer.score(messages, self._task.reference)

    async def close(self) -> None:
        self.done = True


async def validate(task: SingleTurnTask, good: Message, bad: Sequence[Message]) -> None:
    """Hold the grader to known replies. TaskError when it gives `good` less than 1.0 or one of `bad` as much."""
    for reply, wanted in [(good, True), *((message, False) for message in bad)]:
        episode = await task.open()
        verdict = await episode.grade((*task.messages, reply))
        await episode.close()
        if (verdict.reward == 1.0) != wanted:
            raise TaskError(f"{task.task_id}: reply {reply.content!r} was given {verdict.reward}: {verdict.details}")
