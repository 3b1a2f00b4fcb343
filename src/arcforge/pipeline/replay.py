"""`arcforge rl replay`: take an asynchronous stage's training steps again and compare every published version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from arcforge.core.errors import UserError
from arcforge.core.metrics import Progress
from arcforge.core.runs import RunFolder, read_jsonl
from arcforge.pipeline.agentic import SOURCE
from arcforge.pipeline.recipe import load_recipe
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.asynchronous import NAME
from arcforge.rl.policy import Policy
from arcforge.rl.replay import ReplayedStep, replay, written_digests
from arcforge.train.context import read_checkpoint


def replay_run(folder: Path, say: Callable[[str], None]) -> list[ReplayedStep]:
    """Every step of the run's agentic stage. UserError: there is none, or the weights part from the run's."""
    run = RunFolder(folder)
    run.find_stage(NAME)
    work = Workspace(load_recipe(run.config), run)
    config, source = work.recipe.agentic_rl, work.checkpoint(SOURCE)
    written = written_digests(read_jsonl(run.events), NAME)
    torch.set_num_threads(config.trainer_threads)
    policy = Policy(read_checkpoint(source), config.lr, work.recipe.sparse.freeze_indexer)
    progress, steps = Progress("replay", config.steps), []
    for step in replay(config, policy, run.trajectories, NAME, work.tokenizer.pad_id, written):
        steps.append(step)
        if step.step:
            progress.update(1)
        if step.equal is False:
            raise UserError(
                f"{folder}: after {step.step} steps the weights are {step.digest[:12]} and not {step.written[:12]}, which the "
                "run published; other hardware, threads or libraries round differently"
            )
    progress.close()
    compared = sum(step.equal is True for step in steps)
    say(f"{len(steps) - 1} steps replayed, {compared} published versions compared, every bit equal")
    if not compared:
        raise UserError(f"{run.events}: no published version has a digest to compare with")
    return steps
