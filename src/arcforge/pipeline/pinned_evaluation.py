"""Evaluation beside training, as a process of one thread: `python -m arcforge.pipeline.pinned_evaluation CONFIG.toml RUN_FOLDER`.

Each version that the agentic trainer pins (`rl.pinned`) is evaluated on the same held-out tasks of the stage's families, with the
same seeds, by an engine of its own: whatever is published meanwhile, a result belongs to one set of weights. It ends when the
stage's stop file is there and nothing waits any more.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from arcforge.core.errors import DISK, UserError
from arcforge.core.runs import RunFolder
from arcforge.envs.registry import family
from arcforge.evals.run import summary
from arcforge.model.checkpoint import load_checkpoint
from arcforge.pipeline.evaluate import evaluate_family
from arcforge.pipeline.recipe import load_recipe
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.asynchronous import NAME
from arcforge.rl.pinned import PinnedWeights

POLL_SECONDS = 0.2
NICENESS = 10
"""Rollouts and updates go first."""


def work(space: Workspace) -> None:
    folder = space.folder(NAME)
    pinned, stop = PinnedWeights(folder / "pinned"), folder / "stop"
    while True:
        stopped = stop.exists()  # before looking: what is pinned before the stop is still evaluated
        waiting = pinned.waiting()
        for pin in waiting[:1]:
            pinned.finish(pin, evaluated(space, pinned.weights(pin)))
        if stopped and not waiting:
            return
        if not waiting:
            time.sleep(POLL_SECONDS)


def evaluated(space: Workspace, checkpoint: Path) -> dict[str, Any]:
    """Mean reward of each family with its interval, and the mean of those means. A family of which nothing could be graded has
    failures alone."""
    config, seed = space.recipe.agentic_rl, space.seed("evaluate")
    model, row, rewards = load_checkpoint(checkpoint), {}, []
    for task in config.tasks:
        made = family(task.name, space.recipe.run.seed)
        trajectories = evaluate_family(
            model,
            space.tokenizer,
            made,
            space.recipe.evaluate.tasks,
            seed=seed,
            title=f"evaluate {task.name}",
            split="dev",
            context=config.context,
        )
        cell = next(cell for cell in summary(trajectories) if cell.domain == "all")
        row |= {f"tasks/{task.name}": cell.total, f"failures/{task.name}": sum(cell.failures.values())}
        if cell.value is not None:
            rewards.append(cell.value)
            row |= {f"reward/{task.name}": cell.value, f"low/{task.name}": cell.low, f"high/{task.name}": cell.high}
    return {"reward": sum(rewards) / len(rewards), **row} if rewards else row


def main(arguments: list[str]) -> int:
    config, folder = arguments
    os.nice(NICENESS)
    torch.set_num_threads(1)
    try:
        work(Workspace(load_recipe(Path(config)), RunFolder(folder)))
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
