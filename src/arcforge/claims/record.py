"""`arcforge run` of a recipe with a [record] section: its run with every seed, the comparisons, and what came out.

<run.folder>/seed-<n>/                            a run of the recipe's stages
<run.folder>/comparisons/<name>-seed-<n>.json     what a comparison found; its own files lie in a folder of that name
<run.folder>/record/                              README.md, results.json, config.toml
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from arcforge.claims import attention, multi_token, teachers
from arcforge.claims.markdown import Result
from arcforge.claims.pairs import gains
from arcforge.claims.readme import machine, render
from arcforge.core.config import dump_toml
from arcforge.core.errors import UserError
from arcforge.core.interrupts import InterruptWatch
from arcforge.core.runs import RunFolder, atomic_write
from arcforge.pipeline.estimate import describe
from arcforge.pipeline.recipe import Recipe, RecordConfig, load_recipe
from arcforge.pipeline.run import cpu_seconds, keep_config, remove_half_written, run_stages
from arcforge.pipeline.workspace import Workspace
from arcforge.view.runs import load_run

COMPARISONS: dict[str, Callable[[Workspace, RecordConfig, Path], Result]] = {
    "attention": attention.compare,
    "multi_token": multi_token.compare,
    "teachers": teachers.compare,
}


def run_record(path: Path, overrides: list[str], dry_run: bool = False) -> None:
    """Run or resume: what is done is not done again. UserError in one line for bad input or a folder of another run."""
    recipe = load_recipe(path, overrides)
    record = recipe.record
    if record is None:
        raise UserError(f"{path}: no [record] section; it says which seeds a record runs")
    if dry_run:
        print(plan(recipe, record))
        return
    home = RunFolder(recipe.run.folder).create().lock()
    for part in ("comparisons", "record"):
        remove_half_written(home.path / part)
    keep_config(home, recipe)
    done: list[int] = []
    for seed in record.seeds:
        mine = of_seed(recipe, seed)
        print(f"seed {seed}: {mine.run.folder}", flush=True)
        run_stages(mine)
        if seed in record.compared:
            compare_all(home, mine, record)
        done.append(seed)
        write_record(home, recipe, done, shlex.join(["arcforge", "run", str(path), *overrides]))
    print(f"record: {home.path / 'record' / 'README.md'}")


def plan(recipe: Recipe, record: RecordConfig) -> str:
    """Text of --dry-run: one seed's cost, and what the record consists of."""
    seeds = ", ".join(map(str, record.seeds))
    compared = ", ".join(str(seed) for seed in record.seeds if seed in record.compared) or "none of them"
    parts = f"record: the above with seeds {seeds}; for {compared} the comparisons {', '.join(COMPARISONS)}"
    return f"{describe(of_seed(recipe, record.seeds[0]))}\n{parts}"


def of_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one seed's run: a folder and a seed of its own, and no record."""
    run = recipe.run.model_copy(update={"folder": str(Path(recipe.run.folder) / f"seed-{seed}"), "seed": seed})
    return recipe.model_copy(update={"run": run, "record": None})


def result_file(home: Path, name: str, seed: int) -> Path:
    return home / "comparisons" / f"{name}-seed-{seed}.json"


def compare_all(home: RunFolder, recipe: Recipe, record: RecordConfig) -> None:
    """The comparisons of one seed whose results are not there yet."""
    seed, work = recipe.run.seed, Workspace(recipe, RunFolder(recipe.run.folder))
    torch.set_num_threads(recipe.run.threads)
    with InterruptWatch() as watch:
        for name, compare in COMPARISONS.items():
            path = result_file(home.path, name, seed)
            if path.exists():
                continue
            print(f"seed {seed}: {name}", flush=True)
            wall, cpu = time.monotonic(), cpu_seconds()
            result = compare(work, record, path.with_suffix(""))
            seconds = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": cpu_seconds() - cpu}
            atomic_write(path, json.dumps({**result, **seconds}, indent=1))
            print(f"seed {seed}: {name} done in {seconds['wall_seconds']:.1f} s", flush=True)
            watch.check()


def write_record(home: RunFolder, recipe: Recipe, seeds: list[int], command: str) -> None:
    """The record of the seeds that are done; the last one's holds all of them."""
    raw = {
        "command": command,
        "machine": machine(),
        "seeds": {str(seed): seed_results(home.path, seed) for seed in seeds},
    }
    folder = home.path / "record"
    atomic_write(folder / "results.json", json.dumps(raw, indent=1))
    atomic_write(folder / "config.toml", dump_toml(recipe))
    atomic_write(folder / "README.md", render(raw))


def seed_results(home: Path, seed: int) -> dict[str, Any]:
    """Every number of one seed: its stages, its evaluation, its gains and its comparisons."""
    run = load_run(home / f"seed-{seed}")
    return {
        "stages": [
            {"stage": s.name, "wall_seconds": s.wall_seconds, "cpu_seconds": s.cpu_seconds, "metrics": s.metrics}
            for s in run.stages
        ],
        "results": run.results,
        "gains": gains(run.path),
        "comparisons": {
            name: json.loads(path.read_text())
            for name in COMPARISONS
            if (path := result_file(home, name, seed)).exists()
        },
    }
