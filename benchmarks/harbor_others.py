"""Harbor tasks written by others, here: how many load, and what becomes of those that are run.

    python benchmarks/harbor_others.py load FOLDER... --out result
    python benchmarks/harbor_others.py run FOLDER... --out result --sample 10

Every folder with a task.toml below FOLDER is a task. `load` reads them all and writes OUT/loaded.json: how many, and why the others are
refused or not run here. `run` lets podman build a random sample of those without a solution (doing nothing must earn 0) and all with one
whose tests and solution need no network (the solution must earn 1), runs them in sandboxes and adds to OUT/runs.jsonl; a second call
goes on, and runs again where a sandbox failed. Only counts, names of tasks and reasons are written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.envs.terminal.admission import SOLVE
from arcforge.envs.terminal.harbor import HarborTask, read_task
from arcforge.envs.terminal.sandboxes import SandboxImage, SandboxRunner
from arcforge.envs.terminal.verdict import verdict
from arcforge.sandbox.images import Engine

SOLUTION_SECONDS = 300.0
_NETWORK = re.compile(r"\b(?:curl|wget|apt-get|apt|uvx?|npm|pip3? install|git clone)\b")


def loaded(folder: Path) -> tuple[list[HarborTask], dict[str, Any]]:
    """(tasks that can be run here, the account of all)."""
    fit, reasons, count = [], Counter[str](), 0
    for place in sorted(path.parent for path in folder.rglob("task.toml")):
        count += 1
        try:
            task = read_task(place)
        except UserError as error:
            reasons[f"refused: {str(error).replace(str(place), 'TASK')}"] += 1
            continue
        if problem := task.problem():
            reasons[f"loaded, not run here: {problem}"] += 1
        else:
            fit.append(task)
    refused = sum(number for reason, number in reasons.items() if reason.startswith("refused"))
    solved = sum("solve.sh" in task.part("solution") for task in fit)
    account = {"tasks": count, "loaded": count - refused, "can_be_run": len(fit), "with_solution": solved}
    return fit, {**account, "reasons": dict(reasons)}


def chosen(tasks: list[HarborTask], sample: int, seed: int) -> tuple[list[HarborTask], list[str]]:
    """(what is run, names of those with a solution that want the network)."""
    solved = [task for task in tasks if "solve.sh" in task.part("solution")]
    online = [task.name for task in solved if wants_network(task)]
    rest = [task for task in tasks if "solve.sh" not in task.part("solution")]
    drawn = random.Random(seed).sample(rest, min(sample, len(rest)))
    return [*drawn, *(task for task in solved if task.name not in online)], online


def wants_network(task: HarborTask) -> bool:
    scripts = [*task.part("tests").items(), *task.part("solution").items()]
    return any(_NETWORK.search(raw.decode("utf-8", "replace")) for path, raw in scripts if path.endswith(".sh"))


async def outcome(task: HarborTask, runner: SandboxRunner) -> dict[str, Any]:
    row: dict[str, Any] = {"task": task.name, "nop": None, "oracle": None, "reason": ""}
    began = time.monotonic()
    try:
        async with runner.image(task) as image:
            row["image_seconds"] = round(time.monotonic() - began, 1)
            row["nop"] = await rewarded(image, "true", {})
            if solution := task.part("solution"):
                row["oracle"] = await rewarded(image, SOLVE, solution)
    except (BoundaryError, UserError) as error:
        row["reason"] = f"{getattr(error, 'boundary', 'user')}: {' '.join(str(error).split())[-300:]}"
    return {**row, "seconds": round(time.monotonic() - began, 1)}


async def rewarded(image: SandboxImage, script: str, files: dict[str, bytes]) -> float | None:
    async with image.attempt() as attempt:
        await attempt.act(script, files, SOLUTION_SECONDS)
        return verdict(await attempt.verify()).reward


async def run(tasks: list[HarborTask], log: Path, deadline: float) -> None:
    async with SandboxRunner(Engine()) as runner:
        for task in tasks:
            if time.monotonic() > deadline:
                return
            row = await outcome(task, runner)
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["load", "run"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=10, help="of each folder's tasks without a solution")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no new task after this time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    log, accounts, todo = arguments.out / "runs.jsonl", {}, []
    for folder in arguments.folders:
        fit, account = loaded(folder)
        wanted, online = chosen(fit, arguments.sample, arguments.seed)
        accounts[folder.name] = {**account, "with_solution_that_wants_the_network": len(online)}
        todo += wanted
    atomic_write(arguments.out / "loaded.json", json.dumps(accounts, indent=1) + "\n")
    print(json.dumps(accounts, indent=1))
    if arguments.what == "run":
        done = {row["task"] for row in read_jsonl(log) if not row["reason"].startswith("sandbox")}
        asyncio.run(run([task for task in todo if task.name not in done], log, deadline))


if __name__ == "__main__":
    main()
