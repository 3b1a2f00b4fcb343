"""Advantages of a group of attempts at one task, and the repair of groups that lost members. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

Member = TypeVar("Member")


def grpo(rewards: Sequence[float | None]) -> list[float | None]:
    """(r - mean) / std over valid members (GLM-5 report, section 3.2). None in, None out: a failure is not a 0.

    std is the population standard deviation; a group whose rewards are all equal teaches nothing and gets zeros.
    """
    mean, std = _moments(rewards)
    return [None if r is None else ((r - mean) / std if std > 0 else 0.0) for r in rewards]


def agentic(rewards: Sequence[float | None]) -> list[float | None]:
    """r - mean over valid members, no division (GLM-5 report, section 3.3). None in, None out."""
    mean, _ = _moments(rewards)
    return [None if r is None else r - mean for r in rewards]


def repair(valid: Sequence[Member], size: int) -> list[Member] | None:
    """Give a group its full size again, or None to drop it (GLM-5 report, section 4.1.2).

    When more than half of the `size` members are valid, they are repeated in order until the group is full.
    """
    if 2 * len(valid) <= size:
        return None
    return [valid[i % len(valid)] for i in range(size)]


def _moments(rewards: Sequence[float | None]) -> tuple[float, float]:
    valid = [r for r in rewards if r is not None]
    if not valid:
        return 0.0, 0.0
    # Equal rewards must give exactly 0, and sum / n of equal floats may miss them by one rounding.
    if min(valid) == max(valid):
        return valid[0], 0.0
    mean = math.fsum(valid) / len(valid)
    return mean, math.sqrt(math.fsum((r - mean) ** 2 for r in valid) / len(valid))
