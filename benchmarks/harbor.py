"""The tasks of this project under Harbor itself: its oracle agent must earn 1, its nop agent 0.

    python benchmarks/harbor.py --out result --tasks 24
    python benchmarks/harbor.py --out result --tasks 45 --concurrent 3

Needs `harbor` (PyPI, Python 3.12 or newer) on the path, in an environment of its own if need be, and its container engine
with the image debian:bookworm-slim. Tasks are exported to OUT/tasks, generated and handwritten ones in turn, and `harbor run`
writes its trials to OUT/jobs; a second call runs only what has no trial there yet. OUT/result.json and OUT/table.md hold
what every trial of all calls came to.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from arcforge.core.runs import atomic_write
from arcforge.envs.terminal.generate import DIFFICULTIES, FAMILIES, generate
from arcforge.envs.terminal.handwritten.collection import handwritten
from arcforge.envs.terminal.harbor import HarborTask, write_task
from arcforge.view.table import table

WANTED = {"oracle": 1.0, "nop": 0.0}
PHASES = ("environment_setup", "agent_execution", "verifier")


def mixed(count: int, seed: int) -> list[HarborTask]:
    """The first of: a task of every generator, difficulties in turn, and the handwritten ones between them."""
    generated = [generate(name, seed, DIFFICULTIES[at % len(DIFFICULTIES)]) for at, name in enumerate(FAMILIES)]
    both = chain.from_iterable(zip_longest(generated, handwritten()))
    return [task for task in both if task is not None][:count]


def run(tasks: list[HarborTask], agent: str, out: Path, engine: str, concurrent: int) -> None:
    """One job of Harbor; its trials stay in OUT/jobs whatever it ends with."""
    folder = out / "tasks" / agent
    shutil.rmtree(folder, ignore_errors=True)
    for task in tasks:
        write_task(task, folder)
    number = len(list((out / "jobs").glob(f"{agent}-*")))
    command = ["harbor", "run", "-p", str(folder), "-a", agent, "-e", engine, "-n", str(concurrent), "-y", "-q"]
    command += ["-o", str(out / "jobs"), "--job-name", f"{agent}-{number}"]
    subprocess.run(command, check=False)


def trials(jobs: Path) -> Iterator[dict[str, Any]]:
    """One row for each trial that ended, in the order in which they began."""
    results = [json.loads(path.read_text()) for path in jobs.glob("*/*/result.json")]
    for told in sorted(results, key=lambda result: result["started_at"]):
        failure, verified = told.get("exception_info"), told.get("verifier_result") or {}
        yield {
            "task": told["task_name"].rpartition("/")[2],
            "agent": told["agent_info"]["name"],
            "reward": (verified.get("rewards") or {}).get("reward"),
            "exception": failure
            and f"{failure['exception_type']}: {failure['exception_message']}".splitlines()[0][:200],
            "seconds": seconds(told),
            **{f"{phase}_seconds": seconds(told.get(phase) or {}) for phase in PHASES},
        }


def seconds(span: dict[str, Any]) -> float | None:
    if not span.get("started_at") or not span.get("finished_at"):
        return None
    ends = [datetime.fromisoformat(span[name].replace("Z", "+00:00")) for name in ("started_at", "finished_at")]
    return round((ends[1] - ends[0]).total_seconds(), 1)


def done(rows: list[dict[str, Any]], agent: str) -> set[str]:
    return {row["task"] for row in rows if row["agent"] == agent and row["exception"] is None}


def summary(rows: list[dict[str, Any]], tasks: list[HarborTask], settings: dict[str, Any]) -> dict[str, Any]:
    """by task: the last trial of each agent that a verifier judged, else the last one."""
    last: dict[str, dict[str, Any]] = {task.name: {} for task in tasks}
    for row in rows:
        known = last.get(row["task"], {}).get(row["agent"])
        if row["task"] in last and (known is None or row["exception"] is None):
            last[row["task"]][row["agent"]] = row
    good = [
        name
        for name, found in last.items()
        if all(found.get(a, {}).get("reward") == want for a, want in WANTED.items())
    ]
    return {
        **settings,
        "tasks": len(tasks),
        "as_wanted": len(good),
        "not_as_wanted": [name for name in last if name not in good],
        "trials": len(rows),
        "exceptions": [row for row in rows if row["exception"]],
        "kinds": {task.name: task.config.metadata.get("family", "handwritten") for task in tasks},
        "results": last,
    }


def written(result: dict[str, Any]) -> str:
    rows = []
    for name, found in result["results"].items():
        cells = [found.get(agent, {}) for agent in WANTED]
        rewards = [cell.get("reward") if cell.get("reward") is not None else cell.get("exception") for cell in cells]
        rows.append([name, result["kinds"][name], *map(str, rewards), *(str(cell.get("seconds")) for cell in cells)])
    return table(["task", "generator", *WANTED, *(f"{agent} s" for agent in WANTED)], rows)


def version(*command: str) -> str:
    """The first number with dots that the command prints; "" when there is no such command."""
    if shutil.which(command[0]) is None:
        return ""
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(?:\.\d+)+", told.stdout + told.stderr)
    return found[0] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="podman", help="Harbor's name of an environment")
    parser.add_argument(
        "--network", default="public", choices=["public", "no-network"], help="no-network: Harbor pulls images for it"
    )
    parser.add_argument("--concurrent", type=int, default=2)
    arguments = parser.parse_args()
    if shutil.which("harbor") is None:
        sys.exit("harbor is not on the path; in an environment of Python 3.12 or newer: pip install harbor")
    tasks = [task.with_network(arguments.network) for task in mixed(arguments.tasks, arguments.seed)]
    for agent in WANTED:
        judged = done(list(trials(arguments.out / "jobs")), agent)
        if todo := [task for task in tasks if task.name not in judged]:
            run(todo, agent, arguments.out, arguments.engine, arguments.concurrent)
    settings = {
        "harbor": version("harbor", "--version"),
        arguments.engine: version(arguments.engine, "--version"),
        "python": platform.python_version(),
        "network": arguments.network, "seed": arguments.seed, "concurrent": arguments.concurrent,
    }  # fmt: skip
    result = summary(list(trials(arguments.out / "jobs")), tasks, settings)
    atomic_write(arguments.out / "result.json", json.dumps(result, indent=1) + "\n")
    atomic_write(arguments.out / "table.md", written(result) + "\n")
    print(written(result))
    print(f"{result['as_wanted']} of {result['tasks']} as wanted; not: {', '.join(result['not_as_wanted']) or 'none'}")


if __name__ == "__main__":
    main()
