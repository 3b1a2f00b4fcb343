"""Every policy on the same questions with the same seeds, by the agent loop, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import DiscardAll, Hierarchical, KeepAll, KeepRecent, Summary
from arcforge.core.messages import Sampling, Value
from arcforge.core.protocols import ContextPolicy
from arcforge.evals.context_simulation.searcher import Reading, Searcher, Summarizer
from arcforge.evals.context_simulation.world import SearchTask, World
from arcforge.evals.stats import Interval, wilson

Policies = Mapping[str, Callable[[Reading], ContextPolicy]]


def policies(keep: int = 5, threshold: int = 32_768) -> Policies:
    """A maker of each policy, by name."""
    return {
        KeepAll.name: lambda reading: KeepAll(),
        KeepRecent.name: lambda reading: KeepRecent(keep),
        DiscardAll.name: lambda reading: DiscardAll(threshold),
        Summary.name: lambda reading: Summary(Summarizer(reading), threshold),
        Hierarchical.name: lambda reading: Hierarchical(keep, threshold),
    }


class Outcome(Value):
    """One run. longest_context: tokens of its longest request. resets: discards or summaries."""

    correct: bool
    stop_reason: str
    turns: int
    tokens: int
    longest_context: int
    resets: int


class Row(Value):
    """One policy over all runs: accuracy with its 95% Wilson interval, means of the rest; tokens over all turns."""

    policy: str
    runs: int
    accuracy: Interval
    turns: float
    tokens: float
    longest_context: float
    resets: float
    stop_reasons: dict[str, int]


async def outcome(task: SearchTask, reading: Reading, policy: ContextPolicy, seed: int) -> Outcome:
    """One question, searched by the agent loop."""
    searcher = Searcher(reading, task.world.window, task.world.thought_tokens)
    episode = await task.open()
    run = await run_agent(task, episode, searcher, policy, Sampling(seed=seed))
    verdict = await episode.grade(run.messages)
    return Outcome(
        correct=verdict.reward == 1.0,
        stop_reason=run.stop_reason,
        turns=run.turns,
        tokens=run.prompt_tokens + run.completion_tokens,
        longest_context=searcher.longest,
        resets=sum(event.action != "omit" for event in policy.events),
    )


def simulate(
    world: World, reading: Reading, makers: Policies, *, seeds: Sequence[int], tasks: int
) -> dict[str, list[Outcome]]:
    """Outcomes by policy, of every question under every seed, in the same order for each policy.

    A seed makes its own questions and its own chances; policies share both.
    """

    async def work() -> dict[str, list[Outcome]]:
        return {
            name: [
                await outcome(world.task(seed, index), reading, make(reading), seed * 1_000_003 + index)
                for seed in seeds
                for index in range(tasks)
            ]
            for name, make in makers.items()
        }

    return asyncio.run(work())


def summed(policy: str, outcomes: Sequence[Outcome]) -> Row:
    reasons = sorted(outcome.stop_reason for outcome in outcomes)
    return Row(
        policy=policy,
        runs=len(outcomes),
        accuracy=wilson(sum(outcome.correct for outcome in outcomes), len(outcomes)),
        turns=fmean(outcome.turns for outcome in outcomes),
        tokens=fmean(outcome.tokens for outcome in outcomes),
        longest_context=fmean(outcome.longest_context for outcome in outcomes),
        resets=fmean(outcome.resets for outcome in outcomes),
        stop_reasons={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
    )


def in_papers_order(rows: Sequence[Row]) -> bool:
    """Whether hierarchical is right more often than keep-recent, and that more often than keep-all (GLM-5 report, 4.2.4)."""
    found = {row.policy: row.accuracy.value for row in rows}
    return found[Hierarchical.name] > found[KeepRecent.name] > found[KeepAll.name]
