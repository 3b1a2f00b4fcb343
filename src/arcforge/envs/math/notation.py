"""LaTeX of exact values, and answers near to a right one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt

from arcforge.envs.levelled import Exercise

Number = int | Fraction


def latex(value: Number) -> str:
    """`7`, `-7`, `\\frac{3}{4}`, `-\\frac{3}{4}`."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def polynomial(coefficients: Sequence[Number], variable: str = "x") -> str:
    """Highest power first: (2, 0, -1) is `2x^{2} - 1`."""
    terms = []
    for power, value in zip(range(len(coefficients) - 1, -1, -1), coefficients):
        if value:
            letter = "" if power == 0 else variable if power == 1 else f"{variable}^{{{power}}}"
            size = latex(abs(value)) if abs(value) != 1 or not letter else ""
            terms.append(("- " if value < 0 else "+ ") + size + letter)
    text = " ".join(terms) or "0"
    return text.removeprefix("+ ") if not text.startswith("- ") else f"-{text[2:]}"


def product(factors: Sequence[int], variable: str = "x") -> str:
    """(x - r) for every root r."""
    return "".join(f"({polynomial((1, -root), variable)})" for root in factors)


def surd(radicand: Number, factor: Number = 1) -> str:
    """factor times the square root of radicand > 0, with the largest square taken out."""
    radicand, factor = Fraction(radicand), Fraction(factor)
    factor /= radicand.denominator
    inside, outside = radicand.numerator * radicand.denominator, 1
    for root in range(isqrt(inside), 1, -1):
        if inside % (root * root) == 0:
            inside, outside = inside // (root * root), root
            break
    factor *= outside
    if inside == 1:
        return latex(factor)
    top = "" if abs(factor.numerator) == 1 else str(abs(factor.numerator))
    sign, root_text = ("-" if factor < 0 else ""), f"{top}\\sqrt{{{inside}}}"
    return f"{sign}{root_text}" if factor.denominator == 1 else f"{sign}\\frac{{{root_text}}}{{{factor.denominator}}}"


def is_square(value: int) -> bool:
    return value >= 0 and isqrt(value) ** 2 == value


def near(value: Number) -> tuple[str, ...]:
    """Wrong values: a neighbour, the opposite, the double, the reciprocal."""
    value = Fraction(value)
    others = [value + 1, -value, 2 * value, *([1 / value] if value else [])]
    return tuple(dict.fromkeys(latex(other) for other in others if other != value))


def exercise(
    kind: str,
    level: int,
    facts: tuple[object, ...],
    question: str,
    solution: str,
    answer: str | Number,
    wrong: tuple[str, ...] = (),
) -> Exercise:
    """`answer` as a value brings its own wrong answers."""
    if not isinstance(answer, str):
        answer, wrong = latex(answer), (*wrong, *near(answer))
    return Exercise(kind, level, facts, question, solution, answer, wrong)
