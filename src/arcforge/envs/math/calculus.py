"""calculus: derivatives, integrals, extrema and volumes."""

from __future__ import annotations

import random
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, latex, polynomial

KIND = "calculus"


def make(rng: random.Random, level: int) -> Exercise:
    return (_slope, _integral, _product_rule, _maximum, _volume)[level - 1](rng)


def _value(coefficients: tuple[int, ...], x: int | Fraction) -> Fraction:
    total = Fraction(0)
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


def _derivative(coefficients: tuple[int, ...]) -> tuple[int, ...]:
    degree = len(coefficients) - 1
    return tuple(c * (degree - i) for i, c in enumerate(coefficients[:-1]))


def _slope(rng: random.Random) -> Exercise:
    coefficients = (rng.choice([k for k in range(-5, 6) if k]), *(rng.randint(-9, 9) for _ in range(3)))
    x = rng.choice([k for k in range(-4, 5) if k])
    slope = _derivative(coefficients)
    answer = _value(slope, x)
    return exercise(
        KIND, 1, ("slope", coefficients, x),
        f"Let $f(x) = {polynomial(coefficients)}$. What is $f'({x})$?",
        f"$f'(x) = {polynomial(slope)}$, and at $x = {x}$ this is {latex(answer)}.",
        answer,
    )  # fmt: skip


def _integral(rng: random.Random) -> Exercise:
    coefficients = (rng.randint(1, 9), rng.randint(-9, 9), rng.randint(-9, 9))
    low = rng.randint(-3, 2)
    high = low + rng.randint(1, 4)
    a, b, c = coefficients
    at = [Fraction(a, 3) * x**3 + Fraction(b, 2) * x**2 + c * x for x in (low, high)]
    answer = at[1] - at[0]
    return exercise(
        KIND, 2, ("integral", coefficients, low, high),
        f"What is the exact value of $\\int_{{{low}}}^{{{high}}} ({polynomial(coefficients)}) \\, dx$?",
        f"An antiderivative is ${polynomial((Fraction(a, 3), Fraction(b, 2), c, 0))}$; it is ${latex(at[1])}$ at {high} and "
        f"${latex(at[0])}$ at {low}, so the integral is ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _product_rule(rng: random.Random) -> Exercise:
    a, b = rng.choice([k for k in range(-7, 8) if k]), rng.choice([k for k in range(-9, 10) if k])
    k = rng.choice([-4, -3, -2, 2, 3, 4, 5])
    power = f"e^{{{k}x}}"
    answer = f"({polynomial((a * k, a + b * k))}){power}"
    return exercise(
        KIND, 3, ("product rule", a, b, k),
        f"Differentiate $f(x) = ({polynomial((a, b))}){power}$ with respect to $x$.",
        f"By the product rule $f'(x) = {a}{power} + {k}({polynomial((a, b))}){power} = {answer}$.",
        answer,
        (
            f"({polynomial((a * k, b * k))}){power}",
            f"{a * k}{power}",
            f"({polynomial((a * k, a + b * k + 1))}){power}",
            f"({polynomial((a * k, a + b * k))})e^{{{k + 1}x}}",
        ),
    )  # fmt: skip


def _maximum(rng: random.Random) -> Exercise:
    """f' is 6k (x - r)(x - s) with r < s and k > 0: the local maximum is at r."""
    r, s = sorted(rng.sample(range(-5, 6), 2))
    k, c = rng.randint(1, 3), rng.randint(-20, 20)
    coefficients = (2 * k, -3 * k * (r + s), 6 * k * r * s, c)
    answer = _value(coefficients, r)
    return exercise(
        KIND, 4, ("maximum", k, r, s, c),
        f"What is the value of the local maximum of $f(x) = {polynomial(coefficients)}$?",
        f"$f'(x) = {polynomial(_derivative(coefficients))}$ is zero at $x = {r}$ and $x = {s}$ and changes from plus to minus at "
        f"$x = {r}$. There $f({r}) = {latex(answer)}$.",
        answer,
        (latex(_value(coefficients, s)),),
    )  # fmt: skip


def _volume(rng: random.Random) -> Exercise:
    a, n, h = rng.randint(1, 12), rng.randint(1, 4), rng.randint(1, 6)
    share = Fraction(a * a * h ** (2 * n + 1), 2 * n + 1)
    curve = polynomial((a, *[0] * n))
    answer = f"{latex(share)}\\pi"
    return exercise(
        KIND, 5, ("volume", a, n, h),
        f"The region under $y = {curve}$ from $x = 0$ to $x = {h}$ is turned around the $x$-axis. "
        "What is the exact volume of the solid?",
        f"$\\pi \\int_0^{{{h}}} {polynomial((a * a, *[0] * (2 * n)))} \\, dx = {answer}$.",
        answer,
        (latex(share), f"{latex(2 * share)}\\pi", f"{latex(share)}\\pi^2", f"{latex(share + 1)}\\pi"),
    )  # fmt: skip
