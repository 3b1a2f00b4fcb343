"""Distillation across stages against its teachers (GLM-5 report, section 3.5): what it kept, what there was to recover.

Every checkpoint attempts the same test tasks with the same seeds, each teacher's capability on its own family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcforge.claims.markdown import Result, points, sentences, table
from arcforge.claims.pairs import paired
from arcforge.core.runs import atomic_write
from arcforge.envs.registry import family
from arcforge.model.checkpoint import load_checkpoint
from arcforge.pipeline.evaluate import CAPABILITIES, evaluate_family
from arcforge.pipeline.recipe import RecordConfig
from arcforge.pipeline.stages import teacher_families
from arcforge.pipeline.workspace import Workspace

LEAST = -0.03
TARGET = f"on each teacher's capability the distilled model is within {-100 * LEAST:.0f} points of that teacher"
STUDENT, BEFORE = "distill", "general_rl"
CAPABILITY_OF = {name: capability for capability, name in CAPABILITIES.items()}


def compare(work: Workspace, record: RecordConfig, folder: Path) -> Result:
    """rows: distilled minus teacher, agentic RL included, though the target holds only for those that taught. lost: general
    RL, from which distillation starts, minus teacher. A checkpoint's rewards are kept in `folder`, so it resumes."""
    taught = teacher_families(work.recipe)
    rows, lost = [], []
    for teacher, name in {**taught, "agentic_rl": "swe"}.items():
        rewards = {
            stage: rewards_of(work, record.teacher_tasks, stage, name, folder)
            for stage in dict.fromkeys((teacher, BEFORE, STUDENT))
        }
        row = {"teacher": teacher, "capability": CAPABILITY_OF[name], "taught": teacher in taught}
        rows.append({**row, **paired(rewards[teacher], rewards[STUDENT])})
        if teacher != BEFORE:
            lost.append({**row, **paired(rewards[teacher], rewards[BEFORE])})
    return {
        "rows": rows,
        "lost": lost,
        "target": TARGET,
        "held": all(row["value"] >= LEAST for row in rows if row["taught"]),
        "says": [*map(_kept, rows), _recovered(lost)],
    }


def rewards_of(work: Workspace, tasks: int, stage: str, name: str, folder: Path) -> list[float | None]:
    """Reward of one checkpoint on each test task of a family, in order; None where the infrastructure failed."""
    path = folder / f"{stage}-{CAPABILITY_OF[name]}.json"
    if not path.exists():
        trajectories = evaluate_family(
            load_checkpoint(work.checkpoint(stage)),
            work.tokenizer,
            family(name, work.recipe.run.seed),
            tasks,
            seed=work.seed("evaluate"),
            title=f"teachers {stage} {CAPABILITY_OF[name]}",
        )
        atomic_write(path, json.dumps([t.reward for t in trajectories]))
    return json.loads(path.read_text())


def markdown(results: Mapping[str, Result]) -> str:
    """Distillation against its teachers, general RL against them, and what both say."""
    head = ["seed, teacher", "capability", "tasks", "teacher, per cent"]
    kept = [_line(seed, row) for seed, result in results.items() for row in result["rows"]]
    lost = [_line(seed, row) for seed, result in results.items() for row in result["lost"]]
    return "\n\n".join(
        [
            table([*head, "distilled, per cent", "difference, points"], kept),
            "What general RL, from which distillation starts, had lost of it:",
            table([*head, "general RL, per cent", "difference, points"], lost),
            sentences(results),
        ]
    )


def _line(seed: str, row: Mapping[str, Any]) -> list[str]:
    name = f"{seed} {row['teacher']}" + ("" if row["taught"] else " (did not teach)")
    shares = (f"{100 * row['before']:.1f}", f"{100 * row['after']:.1f}")
    return [name, row["capability"], str(row["tasks"]), *shares, points(row)]


def _kept(row: Mapping[str, Any]) -> str:
    told = f"{points(row)} points from {row['teacher']} on {row['capability']}"
    if not row["taught"]:
        return f"The distilled model is {told}, which did not teach."
    return (
        f"The distilled model is {told}: {'within' if row['value'] >= LEAST else 'beyond'} {-100 * LEAST:.0f} points."
    )


def _recovered(lost: list[dict[str, Any]]) -> str:
    shown = [f"{points(row)} on {row['capability']}" for row in lost if row["high"] < 0]
    if not shown:
        return "General RL is not shown to have lost anything against these checkpoints: nothing was there to recover."
    return f"General RL had lost, in points: {', '.join(shown)}."
