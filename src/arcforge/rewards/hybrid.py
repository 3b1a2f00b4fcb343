"""The hybrid reward of general RL: rules, outcome reward model and generative judge, weighted per dimension.

GLM-5 report, section 3.4. The report gives no weights; `WEIGHTS` are ours: rules lead where an answer can be checked,
the judge and the outcome model where it cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from arcforge.core.errors import JudgeError, TaskError
from arcforge.core.messages import Message
from arcforge.core.protocols import Scorer, Verdict

Part = Literal["rules", "outcome", "judge"]

WEIGHTS: dict[str, dict[Part, float]] = {
    "correctness": {"rules": 0.8, "judge": 0.2},
    "emotion": {"rules": 0.2, "outcome": 0.3, "judge": 0.5},
    "quality": {"rules": 0.5, "outcome": 0.1, "judge": 0.4},
}


class HybridScorer:
    """A Scorer: the weighted sum of its parts' rewards for `reference["dimension"]`.

    weights: dimension -> part -> weight. A part that was not handed in leaves its weight to the others of the
    dimension; the weights used are in the details. When any part fails the whole fails: a score without one of its
    parts would not be comparable within a group. ValueError when a dimension keeps no part.
    """

    def __init__(self, parts: Mapping[Part, Scorer], weights: Mapping[str, Mapping[Part, float]] | None = None) -> None:
        self._parts = dict(parts)
        self._weights = {name: _share(given, self._parts, name) for name, given in (weights or WEIGHTS).items()}

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        dimension = str(reference.get("dimension", ""))
        if dimension not in self._weights:
            raise TaskError(f"dimension {dimension!r} has no weights; known: {', '.join(self._weights)}")
        weights = self._weights[dimension]
        verdicts = await asyncio.gather(*(self._parts[part].score(messages, reference) for part in weights))
        details: dict[str, Any] = {"dimension": dimension}
        total = 0.0
        for (part, weight), verdict in zip(weights.items(), verdicts):
            if verdict.reward is None:
                raise JudgeError(f"{part}: no reward")
            total += weight * verdict.reward
            details[part] = {"reward": verdict.reward, "weight": weight, **verdict.details}
        # Weights are normalised, so only rounding can leave [0, 1]; a full score must be exactly 1.0 to count as a pass.
        return Verdict(reward=min(max(round(total, 9), 0.0), 1.0), details=details)


def _share(given: Mapping[Part, float], parts: Mapping[Part, Scorer], dimension: str) -> dict[Part, float]:
    if any(weight < 0 for weight in given.values()):
        raise ValueError(f"{dimension}: weights must not be negative")
    kept: dict[Part, float] = {part: weight for part, weight in given.items() if part in parts and weight > 0}
    if not kept:
        raise ValueError(f"{dimension}: none of its parts {', '.join(given)} was handed in")
    total = sum(kept.values())
    shares: dict[Part, float] = {part: weight / total for part, weight in kept.items()}
    return shares
