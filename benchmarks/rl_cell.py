"""Our own agentic RL as a contender of benchmarks/async_rl.py: `python benchmarks/rl_cell.py CELL.json RESULT.json`.

The clock starts when every process is up, before the first weights are published, and stops with the last update.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from cell import Cell, Clock, Result
from slow_component import SlowLauncher

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.runs import RunFolder, atomic_write, read_jsonl
from arcforge.pipeline.agentic import start_engines, start_orchestrator
from arcforge.pipeline.job import Job
from arcforge.pipeline.recipe import Recipe, RunConfig
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.agentic_step import AgenticConfig, TaskConfig
from arcforge.rl.asynchronous import NAME, Place, train
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rl.ledger import Ledger
from arcforge.rl.policy import Policy
from arcforge.rollout.record import read_trajectories
from arcforge.train.context import read_checkpoint

ENGINES = 2
MAX_STALENESS = 2
LR = 1e-3
TIMEOUT = 600.0
"""Seconds per rollout: what a latency makes slow is waited for."""
READY_SECONDS = 60.0


def agentic_config(cell: Cell) -> AgenticConfig:
    """Asynchronous: as many rollouts in flight as its staleness lets it use, a trainer of one thread. Synchronous: the whole
    batch in flight, then a trainer of two threads."""
    batch, barrier = cell.groups * cell.group_size, cell.contender == "synchronous"
    return AgenticConfig(
        tasks=(TaskConfig(timeout=TIMEOUT),),
        steps=cell.steps,
        groups=cell.groups,
        group_size=cell.group_size,
        lr=LR,
        max_staleness=MAX_STALENESS,
        concurrency=batch if barrier else (MAX_STALENESS + 1) * batch,
        engines=ENGINES,
        trainer_threads=2 if barrier else 1,
        synchronous=barrier,
    )


def measure(cell: Cell) -> Result:
    config = agentic_config(cell)
    work = Workspace(Recipe(run=RunConfig(folder=str(cell.folder)), agentic_rl=config), RunFolder(cell.folder).create())
    place = Place(
        folder=work.folder(NAME),
        trajectories=work.run.trajectories,
        source=cell.checkpoint,
        sink=work.sink,
        events=work.events,
        tokenizer=Tokenizer.load(cell.checkpoint),
        seed=cell.seed,
    )
    torch.manual_seed(cell.seed)
    torch.set_num_threads(config.trainer_threads)
    policy = Policy(read_checkpoint(cell.checkpoint), config.lr)
    with SlowLauncher(place.folder / "logs", cell.latency) as launcher:
        start_orchestrator(launcher, config, place, work, start_engines(launcher, config, place, ENGINES))
        job = Job.model_validate_json((place.folder / "job.json").read_text())
        up = lambda: all(job.address_file(share.name).exists() for share in job.families)  # noqa: E731
        launcher.wait_ready("orchestrator", up, READY_SECONDS)
        clock = Clock()
        train(config, place, policy, launcher)
        seconds, cpu = clock.read()
        ledger = read_ledger(place.trajectories, NAME)
    return Result(seconds=seconds, cpu_seconds=cpu, **_account(cell, work, ledger))


def _account(cell: Cell, work: Workspace, ledger: Ledger) -> dict[str, Any]:
    rows = [row for row in read_jsonl(work.run.metrics) if row["stage"] == NAME]
    finished = read_trajectories(BufferFiles(work.run.trajectories, NAME).trajectories)
    states = {rollout: ledger.state(rollout) for group in ledger.dispatches.values() for rollout in group.rollout_ids}
    used = [t for t in finished if states.get(t.rollout_id) == "trained"]
    calls = [int(t.metrics["tool_calls"]) for t in used]
    return {
        "trained": len(used),
        "rewards": tuple(row["reward"] for row in rows),
        "staleness": statistics.fmean(row["staleness_mean"] for row in rows),
        "calls": statistics.fmean(calls),
        "latency": statistics.fmean(cell.latency.total(t.task_id, t.attempt, n) for t, n in zip(used, calls)),
        "untrained": len(states) - len(used),
    }


def main(cell: str, result: str) -> None:
    atomic_write(Path(result), measure(Cell.model_validate_json(Path(cell).read_text())).model_dump_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
