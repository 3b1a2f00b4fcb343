"""One attempt at one task: open, run the agent, grade, close. A failure at a boundary is data in the trajectory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from arcforge.agents.loop import AgentRun, run_agent
from arcforge.agents.policies import KeepAll
from arcforge.core.errors import BoundaryError, Failure, JudgeError, RolloutTimeout
from arcforge.core.messages import Sampling
from arcforge.core.protocols import Completer, Completion, CompletionRequest, ContextPolicy, Verdict
from arcforge.core.tasks import Door, Episode, Task
from arcforge.core.trajectory import TokenSpan, Trajectory

CLOSE_SECONDS = 10.0
LAST_WORDS_SECONDS = 0.5
"""By which an agent is ended before the attempt is, a tenth of the time at most: so that it can be said what it was doing."""


class Agent(Protocol):
    """Plays an episode to its end: the agent loop, or a program (`rollout.program`). deadline: event-loop time (seconds)
    after which it raises RolloutTimeout; other boundary errors pass through."""

    def __call__(
        self,
        task: Task,
        episode: Episode,
        completer: Completer,
        policy: ContextPolicy,
        sampling: Sampling,
        deadline: float,
        session: str,
    ) -> Awaitable[AgentRun]: ...


async def attempt(
    task: Task,
    door: Door,
    *,
    rollout_id: str,
    group_id: str = "",
    attempt: int = 0,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    timeout: float = 60.0,
    policy: Callable[[], ContextPolicy] = KeepAll,
    agent: Agent = run_agent,
) -> Trajectory:
    """Run one attempt; `timeout` is wall seconds from opening to the verdict.

    Every BoundaryError, and a timeout, becomes `failure` with reward None: a crashed environment is excluded with its
    reason (GLM-5 report, section 4.1.2). Anything else is a bug and is raised, after everything was closed. Forks of the
    token record follow each other in `spans`, in order of forking. `policy` makes one context policy per attempt of the agent
    loop; what it decided is told in `info["context_events"]`.
    """
    started, rollout = time.time(), _Rollout(task, door, rollout_id, policy(), agent)
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            deadline = asyncio.get_running_loop().time() + timeout - min(LAST_WORDS_SECONDS, timeout / 10)
            await rollout.run(Sampling(temperature=temperature, top_p=top_p, seed=seed), deadline)
    except BoundaryError as error:
        rollout.failure = error.failure()
    except TimeoutError:
        if not scope.expired():
            raise
        rollout.failure = RolloutTimeout(f"no verdict after {timeout:g} s").failure()
    finally:
        await rollout.close()
    finished = time.time()
    return Trajectory(
        rollout_id=rollout_id,
        family=task.family,
        task_id=task.task_id,
        group_id=group_id,
        attempt=attempt,
        seed=seed,
        spans=rollout.spans,
        reward=rollout.verdict.reward if rollout.verdict and not rollout.failure else None,
        failure=rollout.failure,
        stop_reason=rollout.agent.stop_reason if rollout.agent else "failure",
        started=started,
        finished=finished,
        metrics=rollout.metrics(finished - started),
        info=rollout.info(),
    )


class _Rollout:
    """The parts of one attempt and what became of them. Completes for the agent through the door, counting seconds."""

    def __init__(self, task: Task, door: Door, rollout_id: str, policy: ContextPolicy, play: Agent) -> None:
        self._task, self._door, self._id, self._policy, self._play = task, door, rollout_id, policy, play
        self._completer: Completer | None = None
        self._episode: Episode | None = None
        self.agent: AgentRun | None = None
        self.verdict: Verdict | None = None
        self.failure: Failure | None = None
        self.spans: list[TokenSpan] = []
        self._close_problem = ""
        self._forks, self._model_seconds, self._grade_seconds = 0, 0.0, 0.0

    async def run(self, sampling: Sampling, deadline: float) -> None:
        self._completer = self._door.open(self._id, self._task)
        self._episode = await self._task.open()
        self.agent = await self._play(self._task, self._episode, self, self._policy, sampling, deadline, self._id)
        start = time.perf_counter()
        self.verdict = await self._episode.grade(self.agent.messages)
        self._grade_seconds = time.perf_counter() - start
        if self.verdict.reward is None:
            raise JudgeError(f"the grader gave no reward: {self.verdict.details}")

    async def complete(self, request: CompletionRequest) -> Completion:
        assert self._completer
        start = time.perf_counter()
        try:
            return await self._completer.complete(request)
        finally:
            self._model_seconds += time.perf_counter() - start

    async def close(self) -> None:
        """Take the token record and close the episode; a verdict that stands is not undone by a close that fails."""
        try:
            if self._completer:
                forks = self._door.close(self._id)
                self._forks, self.spans = len(forks), [span for fork in forks for span in fork]
        except BoundaryError as error:
            self.failure = self.failure or error.failure()
        try:
            if self._episode:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._episode.close()
        except (BoundaryError, TimeoutError) as error:
            self._close_problem = f"{type(error).__name__}: {error}"

    def metrics(self, seconds: float) -> dict[str, float]:
        """seconds: the whole attempt, of them model and grade; environment: neither model nor grade. Counts for the rest."""
        agent = self.agent or AgentRun([])
        model_seconds = self._model_seconds + agent.model_seconds
        return {
            "seconds": seconds,
            "model_seconds": model_seconds,
            "grade_seconds": self._grade_seconds,
            "environment_seconds": max(0.0, seconds - model_seconds - self._grade_seconds),
            "turns": agent.turns,
            "tool_calls": agent.tool_calls,
            "prompt_tokens": agent.prompt_tokens,
            "completion_tokens": agent.completion_tokens,
            "forks": self._forks,
            "context_resets": sum(event.action != "omit" for event in self._policy.events),
        }

    def info(self) -> dict[str, Any]:
        """Domain, verdict details, problems, a program's output; messages only where no token record holds them."""
        found: dict[str, Any] = {"domain": self._task.domain}
        if self.verdict and self.verdict.details:
            found["verdict"] = self.verdict.details
        if self.agent and self.agent.problem:
            found["problem"] = self.agent.problem
        if self.agent and self.agent.output:
            found["output"] = self.agent.output
        if self.agent and not self.spans:
            found["messages"] = [
                message.model_dump(mode="json", exclude_defaults=True) for message in self.agent.messages
            ]
        if self._policy.events:
            found["context_events"] = [
                event.model_dump(mode="json", exclude_defaults=True) for event in self._policy.events
            ]
        if self._close_problem:
            found["close"] = self._close_problem
        return found
