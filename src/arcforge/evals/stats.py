"""Intervals for what an evaluation reports: a share, a mean, and the difference of two models on the same tasks.

Wilson (1927) for one share; Newcombe (1998), "Improved confidence intervals for the difference between binomial
proportions based on paired data", method 10, for paired shares; percentile bootstrap for anything else, always seeded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean

from arcforge.core.messages import Value

RESAMPLES = 2000


class Interval(Value):
    """An estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """Score interval of a binomial share. ValueError unless 0 <= correct <= total and total > 0."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} of {total} is not a share")
    z, p = _z(confidence), correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # The ends are exact at 0 and 1; rounding must not leave the estimate outside its own interval.
    return Interval(value=p, low=min(max(centre - half, 0.0), p), high=max(min(centre + half, 1.0), p))


def bootstrap_mean(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> Interval:
    """Mean with a percentile bootstrap interval. ValueError without values."""
    if not values:
        raise ValueError("no values to average")
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - confidence) / 2
    return Interval(value=fmean(values), low=_quantile(means, tail), high=_quantile(means, 1 - tail))


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Wilson where every value is 0 or 1, else bootstrap."""
    if values and all(value in (0.0, 1.0) for value in values):
        return wilson(round(sum(values)), len(values))
    return bootstrap_mean(values, seed)


def paired_difference(
    first: Sequence[float], second: Sequence[float], seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean of second minus first over the same tasks in the same order.

    Newcombe's paired score interval where every value is 0 or 1, else the bootstrap over tasks. ValueError when the
    lengths differ or are zero.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    if all(value in (0.0, 1.0) for value in (*first, *second)):
        return _newcombe(first, second, confidence)
    return bootstrap_mean([b - a for a, b in zip(first, second)], seed, confidence)


def mcnemar(first: Sequence[float], second: Sequence[float]) -> float:
    """Exact two-sided p-value that the two are right equally often, from the tasks only one of them passed."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    gained = sum(b > a for a, b in zip(first, second))
    lost = sum(a > b for a, b in zip(first, second))
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def _newcombe(first: Sequence[float], second: Sequence[float], confidence: float) -> Interval:
    """Square-and-add of the two Wilson intervals, with the correlation of the pairs."""
    n = len(first)
    both = sum(a == 1 and b == 1 for a, b in zip(first, second))
    gained = sum(b > a for a, b in zip(first, second))
    lost = sum(a > b for a, b in zip(first, second))
    neither = n - both - gained - lost
    new, old = wilson(both + gained, n, confidence), wilson(both + lost, n, confidence)
    phi = _phi(both, gained, lost, neither)
    difference = new.value - old.value
    below = _root(new.value - new.low, old.high - old.value, phi)
    above = _root(new.high - new.value, old.value - old.low, phi)
    return Interval(value=difference, low=max(difference - below, -1.0), high=min(difference + above, 1.0))


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """Newcombe's estimate of the correlation: a positive one is reduced by the continuity correction n / 2."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    product = both * neither - gained * lost
    if product > 0:
        product = max(product - (both + gained + lost + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def _root(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the nearest two."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
