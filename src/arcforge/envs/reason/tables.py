"""table: a small table of measured values: the largest, the smallest, how many above a mark, two rows combined."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.reason.problem import DIGITS, Problem, other_digits

ROWS = 5

Rows = list[tuple[str, int]]


def make(rng: random.Random) -> Problem:
    rows = list(zip(rng.sample(NAMES, ROWS), rng.sample(DIGITS, ROWS)))
    return rng.choice((_extreme, _above, _pair))(rows, rng)


def _extreme(rows: Rows, rng: random.Random) -> Problem:
    """The trace reads a row and carries the best one so far beside it, so every comparison has both values at hand."""
    word, better = rng.choice((("largest", max), ("smallest", min)))
    best, steps = rows[0], [_cell(rows[0])]
    for row in rows[1:]:
        best = better(best, row, key=_value)
        steps.append(f"{_cell(row)},{_cell(best)}")
    wrong = tuple(name for name, _ in rows if name != best[0])
    return _problem(word, rows, f"which is {word}?", ";".join(steps), best[0], wrong)


def _above(rows: Rows, rng: random.Random) -> Problem:
    """The trace says for every row whether it counts, and the count so far."""
    mark, count, steps = rng.randrange(1, 9), 0, []
    for _, value in rows:
        count += value > mark
        steps.append(f"{value} {'yes' if value > mark else 'no'} {count}")
    return _problem("above", rows, f"how many above {mark}?", ";".join(steps), str(count), other_digits(count))


def _pair(rows: Rows, rng: random.Random) -> Problem:
    """Sum where it stays below ten, else difference, of two rows."""
    (first, a), (second, b) = sorted(rng.sample(rows, 2), key=_value, reverse=True)
    if a + b <= 9 and rng.random() < 0.7:
        word, sign, result = "plus", "+", a + b
    else:
        word, sign, result = "minus", "-", a - b
    trace = f"{first} {a};{second} {b};{a}{sign}{b}={result}"
    return _problem("pair", rows, f"{first} {word} {second}?", trace, str(result), other_digits(result, near=(a, b)))


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
    return f"{row[0]} {row[1]}"


def _value(row: tuple[str, int]) -> int:
    return row[1]
