"""lists: one to five steps on a list of integers, then a number or a list."""

from __future__ import annotations

import random

from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "lists"


def make(rng: random.Random, level: int) -> Exercise:
    chosen = [step(rng) for step in rng.sample(_STEPS, level)]
    text, line = rng.choice(_ENDS)(rng)
    told = "\n".join(f"{number}. {step}" for number, step in enumerate([*(step for step, _ in chosen), text], 1))
    source = "\n".join(["def solve(a):", *(f"    {step}" for _, step in chosen), f"    return {line}"])
    calls = [([rng.randint(-30, 60) for _ in range(rng.randint(3, 12))],) for _ in range(10)] + [([],), ([7],)]
    return problem(
        KIND, level, (*(step for step, _ in chosen), text),
        f"Write a Python function of one list of integers that does this, in order:\n{told}",
        source, calls, (f"return {line}", f"return ({line}, 0)"),
    )  # fmt: skip


def _multiples(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(2, 7)
    r = rng.randrange(n)
    return f"Keep the numbers x with x % {n} == {r} (Python's remainder).", f"a = [x for x in a if x % {n} == {r}]"


def _linear(rng: random.Random) -> tuple[str, str]:
    m, c = rng.choice((-3, -2, -1, 2, 3, 4)), rng.randint(-9, 9)
    return f"Replace each number x by {m} * x + {c}.", f"a = [{m} * x + {c} for x in a]"


def _above(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(-10, 30)
    return f"Keep the numbers greater than {n}.", f"a = [x for x in a if x > {n}]"


def _differences(rng: random.Random) -> tuple[str, str]:
    return (
        "Replace the list by the differences of each number but the first to the one before it.",
        "a = [y - x for x, y in zip(a, a[1:])]",
    )


def _running(rng: random.Random) -> tuple[str, str]:
    return (
        "Replace each number by the sum of itself and all numbers before it.",
        "a = [sum(a[: i + 1]) for i in range(len(a))]",
    )


def _unique(rng: random.Random) -> tuple[str, str]:
    return "Of equal numbers keep the first only, in the order of the list.", "a = list(dict.fromkeys(a))"


def _chunks(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(2, 4)
    return (
        f"Replace each group of {n} neighbours, from the left (the last group may be smaller), by its sum.",
        f"a = [sum(a[i : i + {n}]) for i in range(0, len(a), {n})]",
    )


def _sorted_by(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(3, 9)
    return (
        f"Sort by x % {n} (Python's remainder), and where it is equal from the smaller x to the larger.",
        f"a = sorted(a, key=lambda x: (x % {n}, x))",
    )


def _total(rng: random.Random) -> tuple[str, str]:
    n = rng.choice((97, 101, 997, 1009))
    return f"Return the sum modulo {n} (0 for an empty list).", f"sum(a) % {n}"


def _spread(rng: random.Random) -> tuple[str, str]:
    return "Return the largest minus the smallest number (0 for an empty list).", "max(a) - min(a) if a else 0"


def _list(rng: random.Random) -> tuple[str, str]:
    return "Return the list.", "a"


def _count_pairs(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(2, 9)
    return (
        f"Return how many pairs of positions i < j have a sum that is divisible by {n}.",
        f"sum((x + y) % {n} == 0 for i, x in enumerate(a) for y in a[i + 1 :])",
    )


_STEPS = (_multiples, _linear, _above, _differences, _running, _unique, _chunks, _sorted_by)
_ENDS = (_total, _spread, _list, _count_pairs)
