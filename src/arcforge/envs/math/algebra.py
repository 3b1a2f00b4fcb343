"""algebra: linear, quadratic and cubic equations."""

from __future__ import annotations

import random
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, is_square, latex, polynomial, product, surd

KIND = "algebra"


def make(rng: random.Random, level: int) -> Exercise:
    return (_one_side, _two_sides, _integer_roots, _surd_roots, _cubic)[level - 1](rng)


def _one_side(rng: random.Random) -> Exercise:
    a, x, b = rng.randint(2, 12), rng.choice([n for n in range(-15, 16) if n]), rng.randint(-30, 30)
    c = a * x + b
    return exercise(
        KIND, 1, ("one side", a, b, c),
        f"Solve for $x$: ${polynomial((a, b))} = {c}$.",
        f"Subtract {b} on both sides: ${a}x = {c - b}$. Divide by {a}: $x = {x}$.",
        x,
    )  # fmt: skip


def _two_sides(rng: random.Random) -> Exercise:
    a, c = rng.sample([n for n in range(-9, 10) if n], 2)
    b, d = rng.randint(-20, 20), rng.randint(-20, 20)
    x = Fraction(d - b, a - c)
    return exercise(
        KIND, 2, ("two sides", a, b, c, d),
        f"Solve for $x$: ${polynomial((a, b))} = {polynomial((c, d))}$.",
        f"Collect: $({a} - ({c}))x = {d} - ({b})$, so ${a - c}x = {d - b}$ and $x = {latex(x)}$.",
        x,
    )  # fmt: skip


def _integer_roots(rng: random.Random) -> Exercise:
    r, s = sorted(rng.sample(range(-12, 13), 2))
    k = rng.randint(1, 4)
    return exercise(
        KIND, 3, ("quadratic", k, r, s),
        f"Find all real solutions of ${polynomial((k, -k * (r + s), k * r * s))} = 0$. Give them as a set.",
        f"The left side is ${k if k > 1 else ''}{product((r, s))}$, which is zero at $x = {r}$ and $x = {s}$.",
        f"\\{{{r}, {s}\\}}",
        (f"\\{{{r}\\}}", f"\\{{{r}, {s + 1}\\}}", f"\\{{{r}, {s}, {s + 1}\\}}", f"\\{{{-r - 1}, {-s + 1}\\}}", str(s)),
    )  # fmt: skip


def _surd_roots(rng: random.Random) -> Exercise:
    p = rng.randint(-9, 9)
    q = rng.choice([n for n in range(2, 60) if not is_square(n)])
    root, centre = surd(q), f"{p} " if p else ""
    return exercise(
        KIND, 4, ("surds", p, q),
        f"Find all real solutions of ${polynomial((1, -2 * p, p * p - q))} = 0$. Give them as a set of exact values.",
        f"Completing the square gives $({polynomial((1, -p))})^2 = {q}$, so $x = {p} \\pm {root}$.",
        f"\\{{{centre}- {root}, {centre}+ {root}\\}}",
        (
            f"\\{{{p + 1} - {root}, {p + 1} + {root}\\}}",
            f"\\{{{centre}+ {root}\\}}",
            f"\\{{{centre}- \\sqrt{{{q + 1}}}, {centre}+ \\sqrt{{{q + 1}}}\\}}",
        ),
    )  # fmt: skip


def _cubic(rng: random.Random) -> Exercise:
    r, s, t = sorted(rng.sample([n for n in range(-8, 9) if n], 3))
    coefficients = (1, -(r + s + t), r * s + r * t + s * t, -r * s * t)
    rest = polynomial((1, -(s + t), s * t))
    return exercise(
        KIND, 5, ("cubic", r, s, t),
        f"Find all real solutions of ${polynomial(coefficients)} = 0$. Give them as a set.",
        f"$x = {r}$ is a root among the divisors of {abs(r * s * t)}. Dividing by ${polynomial((1, -r))}$ leaves "
        f"${rest} = {product((s, t))}$, with the roots {s} and {t}.",
        f"\\{{{r}, {s}, {t}\\}}",
        (f"\\{{{r}, {s}\\}}", f"\\{{{r}, {s}, {t + 1}\\}}", f"\\{{{r - 1}, {s}, {t}\\}}"),
    )  # fmt: skip
