"""The family "science": conversion, stoichiometry, mechanics and circuits, graded 0 or 1 by value and unit."""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.envs.checking.client import Checker
from arcforge.envs.levelled import LEVELS, LevelledFamily
from arcforge.envs.science import circuits, conversion, mechanics, stoichiometry
from arcforge.envs.science.scorer import QuantityScorer

SYSTEM = (
    "Solve the problem. Think step by step, then write the final answer in \\boxed{}: one number to at least three significant "
    "digits and its unit, as in \\boxed{9.81\\ \\text{m/s^2}}."
)


class ScienceFamily(LevelledFamily):
    """Implements core.tasks.Family. The checking process starts with the first answer."""

    name = "science"
    system = SYSTEM
    makers = {kind.KIND: kind.make for kind in (conversion, stoichiometry, mechanics, circuits)}

    def __init__(self, seed: int = 0, levels: Sequence[int] = LEVELS, kinds: Sequence[str] = ()) -> None:
        self._checker = Checker()
        super().__init__(QuantityScorer(self._checker), seed, levels, kinds)

    async def close(self) -> None:
        await self._checker.close()
