"""Slow tools: every tool call of an attempt first sleeps.

Seconds are log-normal, with a median of MEDIAN and a sigma that is given, drawn from a seed of (task, attempt, call) alone: every
contender of a benchmark waits for the same calls, in whatever order it makes them.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from arcforge.core.messages import Message, ToolCall, Value
from arcforge.core.protocols import Verdict
from arcforge.core.tasks import Door, Episode, Task
from arcforge.core.trajectory import Trajectory

MEDIAN = 0.3


class Latency(Value):
    """sigma: of the logarithm; None for no latency at all."""

    sigma: float | None
    seed: int = 0

    def seconds(self, task_id: str, attempt: int, call: int) -> float:
        if self.sigma is None:
            return 0.0
        draw = random.Random(f"{self.seed}/{task_id}/{attempt}/{call}").gauss(0.0, 1.0)
        return MEDIAN * math.exp(self.sigma * draw)

    def total(self, task_id: str, attempt: int, calls: int) -> float:
        """Seconds of an attempt's first `calls` calls."""
        return sum(self.seconds(task_id, attempt, call) for call in range(calls))


class SlowEpisode:
    """Implements core.tasks.Episode. attempt: its number among those at the task."""

    def __init__(self, episode: Episode, latency: Latency, task_id: str, attempt: int) -> None:
        self._episode, self._latency, self._task_id, self._attempt = episode, latency, task_id, attempt
        self._calls = 0

    @property
    def done(self) -> bool:
        return self._episode.done

    async def call(self, call: ToolCall) -> str:
        seconds = self._latency.seconds(self._task_id, self._attempt, self._calls)
        self._calls += 1
        await asyncio.sleep(seconds)
        return await self._episode.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        return await self._episode.grade(messages)

    async def close(self) -> None:
        await self._episode.close()


class SlowTask:
    """The task that it is given, with slow episodes."""

    def __init__(self, task: Task, latency: Latency, attempt: int) -> None:
        self._task, self._latency, self._attempt = task, latency, attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    async def open(self) -> Episode:
        return SlowEpisode(await self._task.open(), self._latency, self._task.task_id, self._attempt)


def slowed(attempt: Callable[..., Awaitable[Trajectory]], latency: Latency) -> Callable[..., Awaitable[Trajectory]]:
    """`rollout.attempt.attempt` with slow tools."""

    async def slow(task: Task, door: Door, **options: Any) -> Trajectory:
        return await attempt(cast(Task, SlowTask(task, latency, options["attempt"])), door, **options)

    return slow
