"""Learning-rate schedules as functions of the share of training done."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float) -> float:
    """Linear warm-up over `warmup` steps, then cosine down to `floor` (a share of the peak) at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, total: int, first: float, last: float) -> float:
    """From `first` to `last`, both shares of the peak."""
    return first + (last - first) * min(1.0, step / max(1, total - 1))
