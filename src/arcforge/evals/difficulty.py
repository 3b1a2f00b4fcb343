"""Tasks by how often a model solves them: measure the pass rate of each, keep those in a range.

The difficulty filter of reasoning RL (GLM-5 report, section 3.2; GLM-4.5's curriculum of moderate, then hard tasks): a task
that is always or never solved teaches nothing. Attempts that the machinery failed are counted and never enter a rate.

The measurement is a JSONL file: a first line that says what is measured, then one line per task as it is finished, so that a
measurement that was stopped goes on where it was. A task of which no attempt could be graded is measured again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.core.protocols import Completer
from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.core.tasks import Family, Split, Task
from arcforge.core.trajectory import Trajectory
from arcforge.envs.selected import Selection
from arcforge.evals.doors import CompleterDoor
from arcforge.evals.run import ALL, attempt_seed, graded
from arcforge.evals.stats import wilson
from arcforge.evals.table import aligned
from arcforge.rollout.attempt import attempt


@runtime_checkable
class Levelled(Protocol):
    """A task that says how hard it is meant to be; 0: not said."""

    @property
    def level(self) -> int: ...


class Measurement(Value):
    """What is measured: a registry family with its seed, a split, attempts per task, the sampling, the model's name."""

    family: str
    seed: int
    split: Split
    attempts: int
    temperature: float = 1.0
    model: str


class Rate(Value):
    """One task: `passed` of `graded` attempts earned the full reward. failures: attempts not graded, by boundary."""

    index: int
    task_id: str
    kind: str
    level: int
    passed: int
    graded: int
    failures: dict[str, int] = {}

    @property
    def value(self) -> float | None:
        return self.passed / self.graded if self.graded else None


@dataclass(frozen=True)
class Limits:
    """concurrency: attempts at once. timeout: seconds per attempt."""

    concurrency: int = 16
    timeout: float = 120.0


async def measure(
    measurement: Measurement,
    family: Family,
    completer: Completer,
    indices: Sequence[int],
    path: Path,
    limits: Limits = Limits(),
) -> list[Rate]:
    """The rates of the tasks `indices`, those in `path` and the others measured now, in order of the indices.

    family: what measurement.family names, open; the caller closes it. UserError when it is another, and when `path` holds
    another measurement.
    """
    if family.name != measurement.family:
        raise UserError(f"the measurement is of {measurement.family}, the family given is {family.name}")
    if measurement.attempts < 1 or limits.concurrency < 1:
        raise UserError(f"attempts {measurement.attempts} and concurrency {limits.concurrency} must be at least 1")
    known = {rate.index: rate for rate in _begin(measurement, path) if rate.graded}
    gate, door = asyncio.Semaphore(limits.concurrency), CompleterDoor(completer)

    async def once(task: Task, index: int, number: int) -> Trajectory:
        async with gate:
            return await attempt(
                task,
                door,
                rollout_id=f"difficulty-{measurement.seed}-{index}-{number}",
                attempt=number,
                seed=attempt_seed(measurement.seed, index, measurement.attempts, number),
                temperature=measurement.temperature,
                timeout=limits.timeout,
            )

    async def one(index: int) -> None:
        task = family.task(measurement.split, index)
        trajectories = await asyncio.gather(*(once(task, index, number) for number in range(measurement.attempts)))
        known[index] = _rate(task, index, trajectories)
        with path.open("a") as file:
            file.write(known[index].model_dump_json() + "\n")

    wanted = list(dict.fromkeys(indices))
    async with asyncio.TaskGroup() as group:
        for index in wanted:
            if index not in known:
                group.create_task(one(index))
    return [known[index] for index in wanted]


def read_rates(path: Path) -> tuple[Measurement, list[Rate]]:
    """What `measure` wrote; the last line of a task counts. UserError when it is something else."""
    rows = read_jsonl(path)
    try:
        measurement = Measurement.model_validate(rows[0])
        rates = [Rate.model_validate(row) for row in rows[1:]]
    except (ValueError, IndexError):
        raise UserError(f"{path}: no measurement of pass rates; write it with evals.difficulty.measure") from None
    return measurement, list({rate.index: rate for rate in rates}.values())


def keep(rates: Sequence[Rate], low: float, high: float) -> list[Rate]:
    """Those with low <= rate <= high. Tasks of which nothing was graded have no rate and are left out."""
    if not 0 <= low <= high <= 1:
        raise UserError(f"pass rates from {low:g} to {high:g}: 0 <= low <= high <= 1 is wanted")
    return [rate for rate in rates if rate.value is not None and low <= rate.value <= high]


def write_selection(measurement: Measurement, kept: Sequence[Rate], path: Path) -> None:
    """A file that the registry opens as the family `selected:FILE`."""
    indices = tuple(sorted(rate.index for rate in kept))
    selection = Selection(family=measurement.family, seed=measurement.seed, split=measurement.split, indices=indices)
    atomic_write(path, json.dumps(selection.model_dump()))


def table(rates: Sequence[Rate], low: float, high: float) -> str:
    """Per kind and level and over all: tasks, pass@1 in per cent with its 95% interval over attempts, kept, failed attempts."""
    kept = {rate.index for rate in keep(rates, low, high)}
    cells: dict[tuple[str, str], list[Rate]] = {}
    for rate in sorted(rates, key=lambda rate: (rate.kind, rate.level)):
        cells.setdefault((rate.kind, str(rate.level) if rate.level else "-"), []).append(rate)
    levels: dict[tuple[str, str], list[Rate]] = {}
    for rate in sorted(rates, key=lambda rate: rate.level):
        levels.setdefault((ALL, str(rate.level) if rate.level else "-"), []).append(rate)
    every = {**cells, **levels, (ALL, ALL): list(rates)}
    lines = [["kind", "level", "tasks", "pass@1", "kept", "failed attempts"]]
    return aligned([*lines, *(_line(kind, level, group, kept) for (kind, level), group in every.items())])


def _line(kind: str, level: str, rates: Sequence[Rate], kept: set[int]) -> list[str]:
    passed, graded = sum(rate.passed for rate in rates), sum(rate.graded for rate in rates)
    told = "-"
    if graded:
        interval = wilson(passed, graded)
        told = f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    failed = sum(sum(rate.failures.values()) for rate in rates)
    return [kind, level, str(len(rates)), told, str(sum(rate.index in kept for rate in rates)), str(failed)]


def _begin(measurement: Measurement, path: Path) -> list[Rate]:
    """The rates that are there. Writes the first line of a new file, and ends a line that a kill has torn."""
    if not path.exists() or not path.stat().st_size:
        atomic_write(path, measurement.model_dump_json() + "\n")
        return []
    found, rates = read_rates(path)
    if found != measurement:
        differing = [name for name in Measurement.model_fields if getattr(found, name) != getattr(measurement, name)]
        raise UserError(f"{path}: holds a measurement with another {', '.join(differing)}; choose another file")
    if not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")
    return rates


def _rate(task: Task, index: int, trajectories: Sequence[Trajectory]) -> Rate:
    rewards, failures = graded(trajectories)
    return Rate(
        index=index,
        task_id=task.task_id,
        kind=task.domain,
        level=task.level if isinstance(task, Levelled) else 0,
        passed=sum(reward == 1.0 for reward in rewards),
        graded=len(rewards),
        failures=failures,
    )
