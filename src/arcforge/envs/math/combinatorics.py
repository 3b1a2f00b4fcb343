"""combinatorics: products, choices, arrangements with repeated letters, sums of integers, lattice paths."""

from __future__ import annotations

import random
from math import comb, factorial, prod

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise

KIND = "combinatorics"


def make(rng: random.Random, level: int) -> Exercise:
    return (_menu, _committee, _letters, _sums, _paths)[level - 1](rng)


def _menu(rng: random.Random) -> Exercise:
    a, b, c = (rng.randint(2, 15) for _ in range(3))
    return exercise(
        KIND, 1, ("menu", *sorted((a, b, c))),
        f"A menu has {a} starters, {b} main courses and {c} desserts. How many meals of one of each are there?",
        f"Each choice is free: ${a} \\cdot {b} \\cdot {c} = {a * b * c}$.",
        a * b * c,
    )  # fmt: skip


def _committee(rng: random.Random) -> Exercise:
    a, b = rng.randint(4, 10), rng.randint(4, 10)
    i, j = rng.randint(2, a - 1), rng.randint(2, b - 1)
    answer = comb(a, i) * comb(b, j)
    return exercise(
        KIND, 2, ("committee", a, i, b, j),
        f"From {a} teachers and {b} pupils, how many committees of {i} teachers and {j} pupils can be formed?",
        f"$\\binom{{{a}}}{{{i}}} \\cdot \\binom{{{b}}}{{{j}}} = {comb(a, i)} \\cdot {comb(b, j)} = {answer}$.",
        answer,
    )  # fmt: skip


def _letters(rng: random.Random) -> Exercise:
    letters = sorted(rng.sample("ABCDEFGHKLMNPRST", rng.randint(3, 5)))
    counts = [rng.randint(1, 3) for _ in letters[1:]]
    counts.append(rng.randint(2, 3))
    word = list("".join(letter * count for letter, count in zip(letters, counts)))
    rng.shuffle(word)
    answer = factorial(len(word)) // prod(map(factorial, counts))
    below = " ".join(f"{count}!" for count in counts)
    return exercise(
        KIND, 3, ("letters", "".join(sorted(word))),
        f"In how many different orders can the letters of {''.join(word)} be written?",
        f"{len(word)} letters with repetitions: $\\frac{{{len(word)}!}}{{{below}}} = {answer}$.",
        answer,
    )  # fmt: skip


def _sums(rng: random.Random) -> Exercise:
    parts = rng.randint(3, 5)
    least = [rng.randint(0, 4) for _ in range(parts)]
    total = sum(least) + rng.randint(4, 14)
    free = total - sum(least)
    answer = comb(free + parts - 1, parts - 1)
    unknowns = [f"x_{i + 1}" for i in range(parts)]
    bounds = ", ".join(f"{unknown} \\ge {bound}" for unknown, bound in zip(unknowns, least))
    return exercise(
        KIND, 4, ("sums", total, tuple(sorted(least))),
        f"How many solutions in integers has ${' + '.join(unknowns)} = {total}$ with ${bounds}$?",
        f"Taking the lower bounds off leaves {free} to share among {parts}: "
        f"$\\binom{{{free + parts - 1}}}{{{parts - 1}}} = {answer}$.",
        answer,
    )  # fmt: skip


def _paths(rng: random.Random) -> Exercise:
    m, n = rng.randint(4, 9), rng.randint(4, 9)
    p, q = rng.randint(1, m - 1), rng.randint(1, n - 1)
    every, through = comb(m + n, m), comb(p + q, p) * comb(m - p + n - q, m - p)
    return exercise(
        KIND, 5, ("paths", m, n, p, q),
        f"A path goes from $(0,0)$ to $({m},{n})$ in unit steps to the right and up and never passes through $({p},{q})$. "
        "How many such paths are there?",
        f"Of $\\binom{{{m + n}}}{{{m}}} = {every}$ paths, {through} pass through the point, which leaves {every - through}.",
        every - through,
        (str(every), str(through)) if every != 2 * through else (str(every),),
    )  # fmt: skip
