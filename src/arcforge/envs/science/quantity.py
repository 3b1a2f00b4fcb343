"""An exercise whose answer is a number with a unit."""

from __future__ import annotations

from arcforge.envs.levelled import Exercise

TOLERANCE = 0.01  # relative: three significant digits are enough, two are where they do not round away more than this
DIGITS = 5


def written(value: float) -> str:
    """Five significant digits; a power of ten where the number is very large or small."""
    text = f"{value:.{DIGITS}g}"
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa} \\times 10^{{{int(power)}}}" if exponent else text


def exercise(
    kind: str,
    level: int,
    facts: tuple[object, ...],
    question: str,
    solution: str,
    value: float,
    unit: str,
    wrong_unit: str,
) -> Exercise:
    """wrong_unit: of another dimension. The wrong answers: no unit, that unit, two per cent off, ten times as much."""
    text = written(value)
    return Exercise(
        kind,
        level,
        facts,
        f"{question} Answer in {unit}.",
        solution,
        f"{text}\\ \\text{{{unit}}}",
        (
            text,
            f"{text}\\ \\text{{{wrong_unit}}}",
            f"{written(value * 1.02)}\\ \\text{{{unit}}}",
            f"{written(value * 10)}\\ \\text{{{unit}}}",
        ),
        {"quantity": {"value": value, "unit": unit, "tolerance": TOLERANCE}},
    )
