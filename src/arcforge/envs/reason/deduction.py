"""logic: the order of three or four names from shuffled clues, and chains of and, or, not read from left to right."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.reason.problem import Problem

PLACES = ("first", "second", "third", "fourth")
OPERATORS = 5


def make(rng: random.Random) -> Problem:
    return _ordering(rng) if rng.random() < 0.6 else _chain(rng)


def _ordering(rng: random.Random) -> Problem:
    """Clues name neighbours, so the order is unique. The trace lists every name that comes after another (the one left
    over is first) and then walks from clue to clue."""
    names = rng.sample(NAMES, rng.choice((3, 4)))
    clues = list(zip(names, names[1:]))
    rng.shuffle(clues)
    place = rng.randrange(len(names))
    word = rng.choice((PLACES[place], "last")) if place == len(names) - 1 else PLACES[place]
    after = " ".join(later for _, later in clues)
    return Problem(
        domain="logic",
        kind="ordering",
        key=f"logic:{' '.join(names)}:{place}",
        question=f"logic: {';'.join(f'{a} before {b}' for a, b in clues)};who is {word}?",
        trace=f"after {after};order {' '.join(names)}",
        answer=names[place],
        wrong=tuple(name for name in names if name != names[place]),
    )


def _chain(rng: random.Random) -> Problem:
    value = rng.random() < 0.5
    parts, steps = [_word(value)], [_word(value)]
    for _ in range(OPERATORS):
        operator, negated, operand = rng.choice(("and", "or")), rng.random() < 0.5, rng.random() < 0.5
        meant = operand != negated
        value = (value and meant) if operator == "and" else (value or meant)
        parts.append(f"{operator} {'not ' if negated else ''}{_word(operand)}")
        steps.append(f"{operator} {_word(meant)}={_word(value)}")
    expression = " ".join(parts)
    return Problem(
        domain="logic",
        kind="truth",
        key=f"logic:{expression}",
        question=f"logic: {expression}",
        trace=";".join(steps),
        answer=_word(value),
        wrong=(_word(not value),),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"
