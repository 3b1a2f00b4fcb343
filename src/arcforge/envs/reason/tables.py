"""table: a small table of measured values: two of its rows combined, or the larger of two."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.reason.problem import DIGITS, Problem, other_digits

ROWS = 5

Rows = list[tuple[str, int]]


def make(rng: random.Random) -> Problem:
    rows = list(zip(rng.sample(NAMES, ROWS), rng.sample(DIGITS, ROWS)))
    return rng.choice((_comparison, _pair))(rows, rng)


def _comparison(rows: Rows, rng: random.Random) -> Problem:
    (first, a), (second, b) = rng.sample(rows, 2)
    answer = first if a > b else second
    trace = f"({first}={a},{second}={b}):{a}>{b} {'yes' if a > b else 'no'}"
    wrong = tuple(name for name, _ in rows if name != answer)
    return _problem("comparison", rows, f"larger({first},{second})?", trace, answer, wrong)


def _pair(rows: Rows, rng: random.Random) -> Problem:
    """Sum where it stays below ten, else difference, of two rows."""
    (first, a), (second, b) = sorted(rng.sample(rows, 2), key=_value, reverse=True)
    sign, result = ("+", a + b) if a + b <= 9 and rng.random() < 0.7 else ("-", a - b)
    word = "sum" if sign == "+" else "gap"
    trace = f"({first}={a},{second}={b}):{a}{sign}{b}={result}"
    return _problem("pair", rows, f"{word}({first},{second})?", trace, str(result), other_digits(result, near=(a, b)))


def _problem(kind: str, rows: Rows, asked: str, trace: str, answer: str, wrong: tuple[str, ...]) -> Problem:
    return Problem(
        domain="table",
        kind=kind,
        key=f"table:{';'.join(_cell(row) for row in sorted(rows))}:{asked}",
        question=f"table: {';'.join(_cell(row) for row in rows)};{asked}",
        trace=trace,
        answer=answer,
        wrong=wrong,
    )


def _cell(row: tuple[str, int]) -> str:
    return f"{row[0]}={row[1]}"


def _value(row: tuple[str, int]) -> int:
    return row[1]
