"""Asynchronous agentic RL against synchronous twins (GLM-5 report, section 4.1): seconds for the same number of updates.

    asynchronous             one engine and one trainer of a thread each, both at work all the time
    synchronous              the same placement with a barrier: rollouts, then the update
    synchronous_both_cores   the barrier, but each phase has both cores (two engines, two trainer threads)

Rounds of the arms alternate, so that a machine that is slow for a while is slow for all of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from arcforge.claims.markdown import Result, sentences, table
from arcforge.core.runs import RunFolder, atomic_write, read_jsonl
from arcforge.pipeline.agentic import SOURCE, run_agentic
from arcforge.pipeline.recipe import RecordConfig
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.asynchronous import NAME
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rl.diagnostics import timeline
from arcforge.rollout.record import read_trajectories

ARMS: dict[str, dict[str, Any]] = {
    "asynchronous": {"engines": 1, "trainer_threads": 1, "synchronous": False},
    "synchronous": {"engines": 1, "trainer_threads": 1, "synchronous": True},
    "synchronous_both_cores": {"engines": 2, "trainer_threads": 2, "synchronous": True},
}
STEPS, MOST = 12, 0.75
TARGET = f"asynchronous RL takes at most {MOST} of its synchronous twin's time (medians)"


def compare(work: Workspace, record: RecordConfig, folder: Path) -> Result:
    """Every arm in every round; one that was finished before is kept in `folder`, one that was killed starts afresh."""
    rows = [
        {"round": number, "arm": arm, **timed(work, STEPS, folder / f"round-{number}-{arm}", arm)}
        for number in range(record.twin_rounds)
        for arm in ARMS
    ]
    walls = {arm: [row["wall_seconds"] for row in rows if row["arm"] == arm] for arm in ARMS}
    ratios = {arm: _ratios(walls["asynchronous"], walls[arm]) for arm in ARMS if arm != "asynchronous"}
    return {
        "steps": STEPS,
        "rows": rows,
        "ratios": ratios,
        "target": TARGET,
        "held": ratios["synchronous"]["medians"] <= MOST,
        "says": [_said(arm, ratio) for arm, ratio in ratios.items()],
    }


def timed(work: Workspace, steps: int, folder: Path, arm: str) -> dict[str, Any]:
    """One arm in a run folder of its own, from the seed's checkpoint before agentic RL. What it measured is kept with its
    metrics and events; weights and trajectories are not."""
    path = folder / "timing.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        mine = arm_workspace(work, steps, folder, arm)
        for stage in ("tokenizer", SOURCE):
            shutil.copytree(work.checkpoint(stage), mine.checkpoint(stage))
        torch.manual_seed(mine.seed(NAME))
        run_agentic(mine)
        atomic_write(path, json.dumps(measured(mine.run, steps)))
    for part in ("stages", "trajectories"):
        shutil.rmtree(folder / part, ignore_errors=True)
    return json.loads(path.read_text())


def arm_workspace(work: Workspace, steps: int, folder: Path, arm: str) -> Workspace:
    recipe = work.recipe
    changed = {
        "run": recipe.run.model_copy(update={"folder": str(folder)}),
        "agentic_rl": recipe.agentic_rl.model_copy(update={"steps": steps, **ARMS[arm]}),
    }
    return Workspace(recipe.model_copy(update=changed), RunFolder(folder).create())


def measured(run: RunFolder, steps: int) -> dict[str, Any]:
    """Seconds and rewards of an arm that is done.

    The clock starts when the orchestrator has the first weights in the engines (process starts are not counted) and stops
    with the last batch. trainer_waits: for rollouts. engines_idle: seconds without any rollout in flight.
    """
    events = [row for row in read_jsonl(run.events) if row.get("stage") == NAME]
    start = next(row["time"] for row in events if (row["who"], row["kind"]) == ("orchestrator", "update"))
    batches = [row for row in events if (row["who"], row["kind"]) == ("trainer", "batch")]
    end = next(row["time"] for row in batches if row["step"] == steps)
    clipped = [{**row, "time": max(row["time"], start)} for row in events if row["time"] <= end]
    spans = [(t.started, t.finished) for t in read_trajectories(BufferFiles(run.trajectories, NAME).trajectories)]
    if read_ledger(run.trajectories, NAME).counts().in_flight:
        # Rollouts that nobody waited for leave no record: after the last one that did, they kept the engines busy.
        spans.append((max(finished for _, finished in spans), end))
    wall = end - start
    return {
        "wall_seconds": wall,
        "updates_per_minute": 60 * steps / wall,
        "reward": fmean(row["reward"] for row in read_jsonl(run.metrics) if row["stage"] == NAME),
        "trainer_waits": timeline(clipped)["trainer"]["waited"].get("rollouts", 0.0),
        "trainer_busy": sum(row["seconds"] for row in batches),
        "engines_idle": uncovered(spans, start, end),
    }


def uncovered(spans: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """Length of [start, end] that no span covers."""
    reached, gaps = start, 0.0
    for first, last in sorted(spans):
        gaps += max(0.0, min(first, end) - reached)
        reached = max(reached, min(last, end))
    return gaps + end - reached


def markdown(results: Mapping[str, Result]) -> str:
    """Medians per seed and arm, the ratios of every round, and what they say."""
    arms = [_arm_line(seed, arm, result["rows"]) for seed, result in results.items() for arm in ARMS]
    ratios = [
        [seed, arm.replace("_", " "), f"{ratio['medians']:.2f}", ", ".join(f"{r:.2f}" for r in ratio["rounds"])]
        for seed, result in results.items()
        for arm, ratio in result["ratios"].items()
    ]
    head = ["seed, arm", "wall s", "updates/min", "reward", "trainer waits s", "engines idle s", "wall s of all rounds"]
    return "\n\n".join(
        [
            table(head, arms),
            table(["seed", "asynchronous against", "ratio of medians", "ratio of each round"], ratios),
            sentences(results),
        ]
    )


def _arm_line(seed: str, arm: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    mine = [row for row in rows if row["arm"] == arm]
    middle = {key: median(row[key] for row in mine) for key in mine[0] if key not in ("round", "arm")}
    return [
        f"{seed} {arm.replace('_', ' ')}",
        f"{middle['wall_seconds']:.1f}",
        f"{middle['updates_per_minute']:.2f}",
        f"{middle['reward']:.3f}",
        f"{middle['trainer_waits']:.1f}",
        f"{middle['engines_idle']:.1f}",
        ", ".join(f"{row['wall_seconds']:.1f}" for row in mine),
    ]


def _ratios(asynchronous: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    rounds = [mine / theirs for mine, theirs in zip(asynchronous, other, strict=True)]
    return {"medians": median(asynchronous) / median(other), "rounds": rounds}


def _said(arm: str, ratio: Mapping[str, Any]) -> str:
    lowest, highest = min(ratio["rounds"]), max(ratio["rounds"])
    told = f"{ratio['medians']:.2f} of the time of {arm.replace('_', ' ')} RL (rounds {lowest:.2f} to {highest:.2f})"
    return f"Asynchronous RL takes {told}."
