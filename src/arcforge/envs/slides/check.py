"""One result of one check, and how results become scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from arcforge.core.messages import Value

Level = Literal[1, 2, 3]
MOST_ELEMENTS = 5


class Check(Value):
    """score: 1 as it should be, 0 as bad as can be. elements: the offending ones, worst first where there is an order."""

    level: Level
    name: str
    score: float
    elements: tuple[str, ...] = ()
    note: str = ""


def check(level: Level, name: str, score: float, elements: Sequence[str] = (), note: str = "") -> Check:
    """A result with its score brought into [0, 1] and each element named once."""
    named = tuple(dict.fromkeys(elements))[:MOST_ELEMENTS]
    return Check(level=level, name=name, score=round(min(1.0, max(0.0, score)), 4), elements=named, note=note)


def ramp(value: float, bad: float, good: float) -> float:
    """0 at `bad`, 1 at `good`, linear between them and flat beyond; `bad` may be the larger one."""
    return min(1.0, max(0.0, (value - bad) / (good - bad)))
