"""sequences: arithmetic and geometric ones, linear recurrences, telescoping sums."""

from __future__ import annotations

import random
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, latex

KIND = "sequences"


def make(rng: random.Random, level: int) -> Exercise:
    return (_term, _arithmetic_sum, _geometric_sum, _recurrence, _telescope)[level - 1](rng)


def _term(rng: random.Random) -> Exercise:
    first, step, n = rng.randint(-20, 20), rng.choice([k for k in range(-9, 10) if k]), rng.randint(8, 40)
    shown = ", ".join(str(first + step * k) for k in range(4))
    answer = first + step * (n - 1)
    return exercise(
        KIND, 1, ("term", first, step, n),
        f"An arithmetic sequence begins {shown}. What is its term number {n}?",
        f"The difference is {step}, so the term is ${first} + {n - 1} \\cdot ({step}) = {answer}$.",
        answer,
    )  # fmt: skip


def _arithmetic_sum(rng: random.Random) -> Exercise:
    first, step, n = rng.randint(-10, 20), rng.choice([k for k in range(-6, 10) if k]), rng.randint(10, 40)
    last = first + step * (n - 1)
    answer = n * (first + last) // 2
    return exercise(
        KIND, 2, ("arithmetic sum", first, step, n),
        f"What is the sum of the first {n} terms of the arithmetic sequence {first}, {first + step}, {first + 2 * step}, ...?",
        f"The last term is {last}, so the sum is $\\frac{{{n}({first} + ({last}))}}{{2}} = {answer}$.",
        answer,
    )  # fmt: skip


def _geometric_sum(rng: random.Random) -> Exercise:
    first, n = rng.randint(1, 20), rng.randint(4, 8)
    ratio = rng.choice([Fraction(p, q) for p, q in ((2, 1), (3, 1), (-2, 1), (1, 2), (1, 3), (3, 2), (-1, 2), (2, 3))])
    answer = first * (1 - ratio**n) / (1 - ratio)
    return exercise(
        KIND, 3, ("geometric sum", first, ratio, n),
        f"A geometric sequence has the first term {first} and the common ratio ${latex(ratio)}$. "
        f"What is the sum of its first {n} terms?",
        f"$\\frac{{{first}(1 - r^{{{n}}})}}{{1 - r}}$ with $r = {latex(ratio)}$ and $r^{{{n}}} = {latex(ratio**n)}$ "
        f"is ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _recurrence(rng: random.Random) -> Exercise:
    p, q = rng.randint(1, 3), rng.choice((-2, -1, 1, 2, 3))
    terms, n = [rng.randint(-3, 5), rng.randint(1, 6)], rng.randint(6, 9)
    start = tuple(terms)
    while len(terms) < n:
        terms.append(p * terms[-1] + q * terms[-2])
    rule = f"a_n = {p if p > 1 else ''}a_{{n-1}} {'-' if q < 0 else '+'} {abs(q) if abs(q) > 1 else ''}a_{{n-2}}"
    return exercise(
        KIND, 4, ("recurrence", p, q, start, n),
        f"A sequence has $a_1 = {start[0]}$, $a_2 = {start[1]}$ and ${rule}$ for $n \\ge 3$. What is $a_{{{n}}}$?",
        f"Term by term: {', '.join(map(str, terms))}.",
        terms[-1],
    )  # fmt: skip


def _telescope(rng: random.Random) -> Exercise:
    n, gap, top = rng.randint(6, 40), rng.randint(1, 4), rng.randint(1, 9)
    answer = sum((Fraction(top, k * (k + gap)) for k in range(1, n + 1)), Fraction(0))
    kept = " + ".join(f"\\frac{{1}}{{{k}}}" for k in range(1, gap + 1))
    gone = " - ".join(f"\\frac{{1}}{{{n + k}}}" for k in range(1, gap + 1))
    return exercise(
        KIND, 5, ("telescope", n, gap, top),
        f"What is the exact value of $\\sum_{{k=1}}^{{{n}}} \\frac{{{top}}}{{k(k+{gap})}}$?",
        f"Each term is $\\frac{{{top}}}{{{gap}}}(\\frac{{1}}{{k}} - \\frac{{1}}{{k+{gap}}})$; what does not cancel is "
        f"$\\frac{{{top}}}{{{gap}}}({kept} - {gone}) = {latex(answer)}$.",
        answer,
    )  # fmt: skip
