"""Generate terminal tasks and admit them: how many are fit, why the others are not, how many an hour.

    python benchmarks/terminal_tasks.py --tasks 1000 --out result.json

Tasks are taken family by family in turn, of each difficulty alike; the handwritten ones come on top. A task counts as
admitted when its oracle passes twice, doing nothing fails and no probe scores (arcforge.envs.terminal.admission). Every
outcome is appended to OUT with the ending .jsonl as it comes, and a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import time
from collections import Counter
from pathlib import Path

from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.generate import generate, in_turn
from arcforge.envs.terminal.handwritten.collection import handwritten
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.sandboxes import SandboxRunner


def tasks(count: int) -> list[HarborTask]:
    return [generate(*in_turn(number)) for number in range(count)]


async def run(todo: list[HarborTask], log: Path, in_flight: int) -> None:
    waiting = iter(todo)

    async def work(runner: SandboxRunner) -> None:
        for task in waiting:
            result = await admit(task, runner)
            metadata = task.config.metadata
            row = {
                "task": task.name, "family": metadata.get("family", "handwritten"), "difficulty": metadata.get("difficulty", 0),
                "admitted": result.admitted, "reason": result.reason, "outcomes": result.outcomes,
                "seconds": round(result.seconds, 3),
            }  # fmt: skip
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")

    async with SandboxRunner() as runner:
        await asyncio.gather(*(work(runner) for _ in range(in_flight)))


def summary(rows: list[dict], wall: float, in_flight: int) -> dict:
    generated = [row for row in rows if row["family"] != "handwritten"]
    admitted = sum(row["admitted"] for row in generated)
    families = sorted({row["family"] for row in rows})
    return {
        "generated": len(generated),
        "admitted": admitted,
        "admission_rate": round(admitted / max(1, len(generated)), 4),
        "handwritten": {"tasks": len(rows) - len(generated), "admitted": sum(r["admitted"] for r in rows) - admitted},
        "wall_seconds": round(wall, 1),
        "admitted_per_hour": round(sum(r["admitted"] for r in rows) / wall * 3600),
        "seconds_per_task": round(wall / max(1, len(rows)), 3),
        "cpu_seconds_of_children": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 1),
        "in_flight": in_flight,
        "load_average_at_the_end": os.getloadavg()[0],
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "nice": os.nice(0)},
        "families": {
            name: {
                "generated": sum(r["family"] == name for r in rows),
                "admitted": sum(r["admitted"] for r in rows if r["family"] == name),
                "mean_seconds": round(_mean([r["seconds"] for r in rows if r["family"] == name]), 2),
            }
            for name in families
        },
        "rejections": [{"task": r["task"], "reason": r["reason"]} for r in rows if not r["admitted"]],
        "outcomes": Counter(f"{_kind(name)}: {_told(told)}" for r in rows for name, told in r["outcomes"].items()),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _kind(name: str) -> str:
    return "oracle" if name.startswith("oracle") else name


def _told(outcome: float | str) -> str:
    return f"{outcome:g}" if isinstance(outcome, float | int) else outcome.split(":")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no new task after this time")
    parser.add_argument("--out", type=Path, default=Path("result.json"))
    arguments = parser.parse_args()
    log = arguments.out.with_suffix(".jsonl")
    done = {row["task"] for row in read_jsonl(log)}
    todo = [task for task in [*tasks(arguments.tasks), *handwritten()] if task.name not in done]
    began = time.monotonic()
    deadline = began + 60 * arguments.minutes
    asyncio.run(run(_until(todo, deadline), log, arguments.in_flight))
    rows = read_jsonl(log)
    wall = (
        time.monotonic()
        - began
        + sum(row.get("seconds", 0.0) for row in rows if row["task"] in done) / arguments.in_flight
    )
    result = summary(rows, wall, arguments.in_flight)
    atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")
    print(
        json.dumps(
            {key: result[key] for key in ("generated", "admitted", "admission_rate", "admitted_per_hour", "rejections")}
        )
    )


def _until(todo: list[HarborTask], deadline: float):
    for task in todo:
        if time.monotonic() > deadline:
            return
        yield task


if __name__ == "__main__":
    main()
