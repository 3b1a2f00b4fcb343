"""The family "math": nine kinds of generated mathematics, graded 0 or 1 by the value of the boxed answer."""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.envs.checking.client import Checker
from arcforge.envs.levelled import LEVELS, LevelledFamily
from arcforge.envs.math import (
    algebra,
    calculus,
    combinatorics,
    geometry,
    inequalities,
    number_theory,
    probability,
    sequences,
    systems,
)
from arcforge.envs.math.scorer import MathScorer

SYSTEM = (
    "Solve the problem. Think step by step, then write the final answer in \\boxed{}: an exact value, a number as one integer, "
    "decimal or fraction."
)
_KINDS = (
    algebra, systems, number_theory, combinatorics, probability, sequences, calculus, geometry, inequalities,
)  # fmt: skip


class MathFamily(LevelledFamily):
    """Implements core.tasks.Family. The checking process starts with the first answer that needs symbolic algebra."""

    name = "math"
    system = SYSTEM
    makers = {kind.KIND: kind.make for kind in _KINDS}

    def __init__(self, seed: int = 0, levels: Sequence[int] = LEVELS, kinds: Sequence[str] = ()) -> None:
        self._checker = Checker()
        super().__init__(MathScorer(self._checker), seed, levels, kinds)

    async def close(self) -> None:
        await self._checker.close()
