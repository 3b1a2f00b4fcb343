"""One reasoning problem, with the careful way to its answer and the plausible ways to miss it."""

from __future__ import annotations

import random
from dataclasses import dataclass

DIGITS = tuple(range(10))
LETTERS = "abcdefghkmnpqrstuvwxyz"


@dataclass(frozen=True)
class Problem:
    """question: the user's text. trace: steps joined by semicolons that reach `answer`. wrong: plausible wrong answers.

    key: the content without its accidental order, so that a reshuffled copy is the same problem.
    """

    domain: str
    kind: str
    key: str
    question: str
    trace: str
    answer: str
    wrong: tuple[str, ...]


def step(total: int, rng: random.Random) -> tuple[str, int, int]:
    """(sign, operand, result) with operand 1..9 and result 0..9: uniform over the results that differ from `total`."""
    result = rng.choice([digit for digit in DIGITS if digit != total])
    return ("+" if result > total else "-"), abs(result - total), result


def other_digits(answer: int, near: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Wrong digits: the given near misses and the neighbours of the answer."""
    candidates = (*near, answer - 1, answer + 1, answer - 2, answer + 2)
    return tuple(dict.fromkeys(str(digit) for digit in candidates if 0 <= digit <= 9 and digit != answer))
