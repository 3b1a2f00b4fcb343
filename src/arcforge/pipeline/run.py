"""`arcforge run`: the stages of a recipe in order, each skipped when its folder says that it is done."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from arcforge.core.config import dump_toml
from arcforge.core.errors import DISK, UserError
from arcforge.core.interrupts import InterruptWatch
from arcforge.core.runs import RunFolder, atomic_write
from arcforge.core.sinks import configured_sinks
from arcforge.pipeline.agentic import check_agents, check_launcher
from arcforge.pipeline.estimate import describe
from arcforge.pipeline.recipe import Recipe, load_recipe
from arcforge.pipeline.stages import STAGE_FUNCTIONS
from arcforge.pipeline.workspace import STAGES, Workspace
from arcforge.view.report import write_report
from arcforge.view.table import summary

FREE_TO_CHANGE = (
    "run.folder",
    "run.save_seconds",
    "ray.address",
    "agentic_rl.engines",
    "agentic_rl.evaluate_every",
    "record.seeds",
    "record.compared",
)
HALF_WRITTEN = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names that `atomic_write` gives to files before they are whole."""


def run_recipe(path: Path, overrides: list[str], dry_run: bool = False) -> None:
    """Run or resume. Raises UserError in one line for bad input, a full disk or an unwritable folder."""
    recipe = load_recipe(path, overrides)
    if dry_run:
        print(describe(recipe))
        return
    check_launcher(recipe)
    check_agents(recipe)
    run_stages(recipe)


def run_stages(recipe: Recipe) -> None:
    """Every stage of the recipe that is not done in its run folder, then the report."""
    run = RunFolder(recipe.run.folder).create().lock()
    remove_half_written(run.path)
    keep_config(run, recipe)
    torch.set_num_threads(recipe.run.threads)
    try:
        with InterruptWatch() as watch:
            work = Workspace(recipe, run, configured_sinks())
            for number, stage in enumerate(STAGES, 1):
                run_stage(work, number, stage)
                watch.check()
            work.sink.close()
            write_report(run.path)
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UserError(f"{run.path}: {error.strerror}; free space or permissions, then run the same command") from None
    print(summary(run.path))
    print(f"report: {run.report}")


def run_stage(work: Workspace, number: int, stage: str) -> None:
    """One stage with its clock; `done.json` appears only when everything else is on the disk, and what was kept to resume
    goes only after that. The clock tells of the last start: a stage that was killed has others in events.jsonl."""
    folder = work.folder(stage)
    done = folder / "done.json"
    if done.exists():
        shutil.rmtree(folder / "trainer", ignore_errors=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    print(f"[{number}/{len(STAGES)}] {stage}", flush=True)
    work.events.write({"who": "pipeline", "kind": "stage_start", "stage": stage})
    wall, cpu = time.monotonic(), cpu_seconds()
    torch.manual_seed(work.seed(stage))
    metrics = STAGE_FUNCTIONS[stage](work)
    seconds = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": cpu_seconds() - cpu}
    work.events.write({"who": "pipeline", "kind": "stage_end", "stage": stage, **seconds})
    atomic_write(done, json.dumps({**seconds, "peak_memory_mb": peak_memory_mb(), "metrics": metrics}, indent=1))
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    told = " ".join(f"{k}={v:.4g}" for k, v in metrics.items())
    print(f"[{number}/{len(STAGES)}] {stage} done in {seconds['wall_seconds']:.1f} s {told}", flush=True)


def keep_config(run: RunFolder, recipe: Recipe) -> None:
    """The resolved recipe is written once; a resume with another one is refused, since stages would not fit together."""
    if not run.config.exists():
        atomic_write(run.config, dump_toml(recipe))
        return
    kept, wanted = (flat(r.model_dump(mode="json")) for r in (load_recipe(run.config), recipe))
    changed = [key for key in wanted if kept.get(key) != wanted[key] and key not in FREE_TO_CHANGE]
    if changed:
        raise UserError(
            f"{run.config}: this folder holds a run with {changed[0]}={kept.get(changed[0])}; set run.folder to begin another"
        )


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    pairs: dict[str, Any] = {}
    for key, value in data.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs


def remove_half_written(folder: Path) -> None:
    """Temporary files of writers that were killed. Only the holder of the run's lock may do this."""
    for path in folder.rglob(".*"):
        if HALF_WRITTEN.fullmatch(path.name) and path.is_file():
            path.unlink()


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    mine = os.times()
    return mine.user + mine.system + mine.children_user + mine.children_system


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, or of a child, whichever is larger."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
