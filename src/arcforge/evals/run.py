"""Run tasks through a door with bounded concurrency, and sum the trajectories up per family and domain.

Failures of the infrastructure are counted beside the result and never enter it: a crashed sandbox is not a wrong answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from arcforge.agents.policies import KeepAll
from arcforge.core.messages import Value
from arcforge.core.protocols import ContextPolicy
from arcforge.core.tasks import Door, Task
from arcforge.core.trajectory import Trajectory
from arcforge.evals.stats import mean_interval
from arcforge.rollout.attempt import attempt as run_attempt

OnFinished = Callable[[Trajectory], None]

ALL = "all"
SEED_STRIDE = 1_000_003  # evaluations of neighbouring seeds do not share draws


class Cell(Value):
    """One entry of a table. value: mean reward with its 95% interval (Wilson where rewards are 0 or 1, else bootstrap).

    correct: trajectories with the full reward 1.0. total: trajectories graded. failures: excluded, by boundary.
    value, low and high are None when nothing could be graded.
    """

    family: str
    domain: str = ALL
    correct: int = 0
    total: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    failures: dict[str, int] = {}


async def evaluate(
    tasks: Sequence[Task],
    door: Door,
    *,
    concurrency: int = 16,
    timeout: float = 120.0,
    attempts: int = 1,
    seed: int = 0,
    temperature: float = 1.0,
    policy: Callable[[], ContextPolicy] = KeepAll,
    on_finished: OnFinished | None = None,
) -> list[Trajectory]:
    """Every task `attempts` times, at most `concurrency` at once; task-major order, whatever finishes first.

    timeout: seconds per attempt. Each attempt samples with its own seed, the same in every evaluation with this `seed`,
    so that two checkpoints are compared on the same draws. policy makes one context policy per attempt. on_finished is
    called for each as it ends.
    """
    if concurrency < 1 or attempts < 1:
        raise ValueError(f"concurrency {concurrency} and attempts {attempts} must be at least 1")
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int, task: Task, attempt: int) -> Trajectory:
        async with gate:
            trajectory = await run_attempt(
                task,
                door,
                rollout_id=f"eval-{seed}-{number}-{attempt}",
                group_id=f"eval-{seed}-{number}",
                attempt=attempt,
                seed=attempt_seed(seed, number, attempts, attempt),
                temperature=temperature,
                timeout=timeout,
                policy=policy,
            )
        if on_finished:
            on_finished(trajectory)
        return trajectory

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(n, task, k)) for n, task in enumerate(tasks) for k in range(attempts)]
    return [task.result() for task in running]


def summary(trajectories: Sequence[Trajectory], seed: int = 0) -> list[Cell]:
    """Per family one cell over everything (domain "all") and one per domain, in order of first appearance."""
    groups: dict[tuple[str, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault((trajectory.family, ALL), []).append(trajectory)
    for trajectory in trajectories:
        domain = str(trajectory.info.get("domain", ""))
        if domain:
            groups.setdefault((trajectory.family, domain), []).append(trajectory)
    families = list(dict.fromkeys(family for family, _ in groups))
    ordered = sorted(groups, key=lambda key: families.index(key[0]))
    return [_cell(family, domain, groups[family, domain], seed) for family, domain in ordered]


def graded(trajectories: Sequence[Trajectory]) -> tuple[list[float], dict[str, int]]:
    """(rewards of those that have one, how many of the others failed, by boundary)."""
    rewards: list[float] = []
    failures: dict[str, int] = {}
    for trajectory in trajectories:
        if trajectory.failure is None and trajectory.reward is not None:
            rewards.append(trajectory.reward)
        else:
            place = trajectory.failure.boundary if trajectory.failure else "task"
            failures[place] = failures.get(place, 0) + 1
    return rewards, failures


def attempt_seed(seed: int, number: int, attempts: int, attempt: int) -> int:
    """The sampling seed of one of `attempts` attempts at task `number`: no two of an evaluation share one."""
    return seed * SEED_STRIDE + number * attempts + attempt


def _cell(family: str, domain: str, trajectories: Sequence[Trajectory], seed: int) -> Cell:
    rewards, failures = graded(trajectories)
    cell = Cell(family=family, domain=domain, total=len(rewards), failures=failures)
    if not rewards:
        return cell
    interval = mean_interval(rewards, seed)
    return cell.model_copy(update={"correct": sum(reward == 1.0 for reward in rewards), **interval.model_dump()})
