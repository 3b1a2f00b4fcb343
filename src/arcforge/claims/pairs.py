"""Two checkpoints on the same tasks with the same seeds: what a stage gained or lost, with a paired interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcforge.core.runs import RunFolder
from arcforge.evals.stats import paired_difference

GAINS = (
    ("sft", "reasoning_rl", "reasoning"),
    ("reasoning_rl", "agentic_rl", "agentic"),
    ("sft", "agentic_rl", "agentic"),
)
"""(before, after, capability): what each RL stage is for."""


def paired(before: Sequence[float | None], after: Sequence[float | None]) -> dict[str, Any]:
    """Means and their difference (value, low, high: after minus before, 95% interval), over the tasks that neither lost to
    a failure of the infrastructure (None). Shares, not points. ValueError when there is no such task."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} tasks cannot be paired")
    both = [(a, b) for a, b in zip(before, after) if a is not None and b is not None]
    first, second = [a for a, _ in both], [b for _, b in both]
    interval = paired_difference(first, second)
    means = {"before": sum(first) / len(both), "after": sum(second) / len(both)}
    return {"tasks": len(both), "failed": len(before) - len(both), **means, **interval.model_dump()}


def gains(run: Path) -> list[dict[str, Any]]:
    """GAINS of an evaluated run, from the rewards that its evaluation left. UserError when it has not been evaluated."""
    folder = RunFolder(run).find_stage("evaluate") / "rewards"
    rows = []
    for before, after, capability in GAINS:
        first, second = (json.loads((folder / f"{stage}-{capability}.json").read_text()) for stage in (before, after))
        rows.append({"first": before, "second": after, "capability": capability, **paired(first, second)})
    return rows
