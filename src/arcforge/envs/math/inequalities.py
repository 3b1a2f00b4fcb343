"""inequalities: the answer is an interval or a union of intervals."""

from __future__ import annotations

import random
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, latex, polynomial, product

KIND = "inequalities"
ASKED = "Give all real solutions in interval notation."


def make(rng: random.Random, level: int) -> Exercise:
    return (_linear, _between, _quadratic, _absolute, _rational)[level - 1](rng)


def _linear(rng: random.Random) -> Exercise:
    a, b, c = rng.choice([k for k in range(-9, 10) if k]), rng.randint(-20, 20), rng.randint(-20, 20)
    end, below, strict = latex(Fraction(c - b, a)), a > 0, rng.random() < 0.5
    sign = "<" if strict else "\\le"
    close, swapped = ("()", "[]") if strict else ("[]", "()")
    answer, other = (f"(-\\infty, {end}{close[1]}", f"{close[0]}{end}, \\infty)")[:: 1 if below else -1]
    wrong_end = f"(-\\infty, {end}{swapped[1]}" if below else f"{swapped[0]}{end}, \\infty)"
    return exercise(
        KIND, 1, ("linear", a, b, c, strict),
        f"Solve ${polynomial((a, b))} {sign} {c}$. {ASKED}",
        f"${a}x {sign} {c - b}$; dividing by {a} {'keeps' if below else 'turns'} the sign, so the bound is ${end}$.",
        answer, (other, wrong_end, end),
    )  # fmt: skip


def _between(rng: random.Random) -> Exercise:
    a, b = rng.randint(2, 9), rng.randint(-15, 15)
    low = rng.randint(-30, 20)
    high = low + rng.randint(2, 30)
    left, right = latex(Fraction(low - b, a)), latex(Fraction(high - b, a))
    return exercise(
        KIND, 2, ("between", a, b, low, high),
        f"Solve ${low} < {polynomial((a, b))} \\le {high}$. {ASKED}",
        f"Subtract {b} and divide by {a}: ${left} < x \\le {right}$.",
        f"({left}, {right}]", (f"[{left}, {right}]", f"({left}, {right})", f"[{left}, {right})", f"({right}, {left}]"),
    )  # fmt: skip


def _quadratic(rng: random.Random) -> Exercise:
    r, s = sorted(rng.sample(range(-12, 13), 2))
    inside, strict = rng.random() < 0.5, rng.random() < 0.5
    sign = ("<" if inside else ">") if strict else ("\\le" if inside else "\\ge")
    answer, other = _sets(str(r), str(s), inside, strict), _sets(str(r), str(s), not inside, strict)
    where = "between" if inside else "outside of"
    return exercise(
        KIND, 3, ("quadratic", r, s, inside, strict),
        f"Solve ${polynomial((1, -(r + s), r * s))} {sign} 0$. {ASKED}",
        f"The left side is ${product((r, s))}$, an upward parabola with the roots {r} and {s}; {where} them the sign is right.",
        answer, (other, _sets(str(r), str(s), inside, not strict), _sets(str(r), str(s + 1), inside, strict)),
    )  # fmt: skip


def _absolute(rng: random.Random) -> Exercise:
    a, b, c = rng.randint(1, 7), rng.randint(-15, 15), rng.randint(1, 25)
    inside, strict = rng.random() < 0.5, rng.random() < 0.5
    sign = ("<" if inside else ">") if strict else ("\\le" if inside else "\\ge")
    low, high = latex(Fraction(-c - b, a)), latex(Fraction(c - b, a))
    return exercise(
        KIND, 4, ("absolute", a, b, c, inside, strict),
        f"Solve $|{polynomial((a, b))}| {sign} {c}$. {ASKED}",
        f"${polynomial((a, b))}$ is $-{c}$ at $x = {low}$ and {c} at $x = {high}$.",
        _sets(low, high, inside, strict),
        (_sets(low, high, not inside, strict), _sets(low, high, inside, not strict)),
    )  # fmt: skip


def _rational(rng: random.Random) -> Exercise:
    """(x - p)(x - q) / (x - r) is at least 0: from the smallest to the middle, and from the largest on."""
    roots = rng.sample(range(-9, 10), 3)
    pole, (p, q) = roots[0], sorted(roots[1:])
    first, second, third = sorted(roots)
    ends = {root: "()" if root == pole else "[]" for root in roots}
    answer = f"{ends[first][0]}{first}, {second}{ends[second][1]} \\cup {ends[third][0]}{third}, \\infty)"
    closed = f"[{first}, {second}] \\cup [{third}, \\infty)"
    return exercise(
        KIND, 5, ("rational", pole, p, q),
        f"Solve $\\frac{{{product((p, q))}}}{{{polynomial((1, -pole))}}} \\ge 0$. {ASKED}",
        f"The sign changes at {first}, {second} and {third} and is plus beyond {third}, so it is plus from {first} to {second} too. "
        f"The zero {pole} of the denominator is left out.",
        answer, (closed, f"{ends[third][0]}{third}, \\infty)", f"({first}, {second}) \\cup ({third}, \\infty)"),
    )  # fmt: skip


def _sets(low: str, high: str, inside: bool, strict: bool) -> str:
    left, right = "()" if strict else "[]"
    if inside:
        return f"{left}{low}, {high}{right}"
    return f"(-\\infty, {low}{right} \\cup {left}{high}, \\infty)"
