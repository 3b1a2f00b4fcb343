"""`arcforge run`: the stages of a recipe in order, each skipped when its folder says that it is done."""

from __future__ import annotations

import errno
import json
import os
import resource
import time
from pathlib import Path

import torch

from arcforge.core.config import dump_toml
from arcforge.core.errors import UserError
from arcforge.core.runs import RunFolder, atomic_write
from arcforge.pipeline.estimate import describe
from arcforge.pipeline.recipe import Recipe, load_recipe
from arcforge.pipeline.stages import STAGE_FUNCTIONS
from arcforge.pipeline.workspace import STAGES, Workspace
from arcforge.view.report import write_report
from arcforge.view.table import summary


def run_recipe(path: Path, overrides: list[str], dry_run: bool = False) -> None:
    """Run or resume. Raises UserError in one line for bad input, a full disk or an unwritable folder."""
    recipe = load_recipe(path, overrides)
    if dry_run:
        print(describe(recipe))
        return
    run = RunFolder(recipe.run.folder).create().lock()
    keep_config(run, recipe)
    torch.set_num_threads(recipe.run.threads)
    try:
        work = Workspace(recipe, run)
        for number, stage in enumerate(STAGES, 1):
            run_stage(work, number, stage)
        write_report(run.path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise UserError(
                f"{run.path}: {error.strerror}; free space or permissions, then run the same command"
            ) from None
        raise
    print(summary(run.path))
    print(f"report: {run.report}")


def run_stage(work: Workspace, number: int, stage: str) -> None:
    """One stage with its clock; `done.json` appears only when everything else is on the disk."""
    folder = work.folder(stage)
    done = folder / "done.json"
    if done.exists():
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
    told = " ".join(f"{k}={v:.4g}" for k, v in metrics.items())
    print(f"[{number}/{len(STAGES)}] {stage} done in {seconds['wall_seconds']:.1f} s {told}", flush=True)


def keep_config(run: RunFolder, recipe: Recipe) -> None:
    """The resolved recipe is written once; a resume with another one is refused, since stages would not fit together."""
    text = dump_toml(recipe)
    if not run.config.exists():
        atomic_write(run.config, text)
    elif run.config.read_text() != text:
        raise UserError(f"{run.config}: this folder holds a run of another recipe; set run.folder or remove it")


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    mine = os.times()
    return mine.user + mine.system + mine.children_user + mine.children_system


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, or of a child, whichever is larger."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
