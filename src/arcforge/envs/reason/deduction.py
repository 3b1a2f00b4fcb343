"""logic: the order of three or four names from shuffled clues, and chains of and, or, not read from left to right."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.reason.problem import LETTERS, Problem

PLACES = ("first", "second", "third", "fourth")
OPERATORS = 4


def make(rng: random.Random) -> Problem:
    return _ordering(rng) if rng.random() < 0.6 else _chain(rng)


def _ordering(rng: random.Random) -> Problem:
    """Clues name neighbours, so the order is unique. The trace asks of one clue after another whether its first name
    comes after nobody, and from the name that does walks from clue to clue."""
    names = rng.sample(NAMES, rng.choice((3, 4)))
    clues = list(zip(names, names[1:]))
    rng.shuffle(clues)
    place = rng.randrange(len(names))
    word = rng.choice((PLACES[place], "last")) if place == len(names) - 1 else PLACES[place]
    earlier = [a for a, _ in clues]
    passed = earlier[: earlier.index(names[0])]
    checks = [*(f"{name} no" for name in passed), f"{names[0]} first"]
    return Problem(
        domain="logic",
        kind="ordering",
        key=f"logic:{' '.join(names)}:{place}",
        question=f"logic: {';'.join(f'{a} before {b}' for a, b in clues)};who is {word}?",
        trace=";".join([*checks, f"order {' '.join(names)}"]),
        answer=names[place],
        wrong=tuple(name for name in names if name != names[place]),
    )


def _chain(rng: random.Random) -> Problem:
    """Every clause has a letter of its own, so that a step of the trace says which clause it is about."""
    value = rng.random() < 0.5
    labels = rng.sample(LETTERS, OPERATORS + 1)
    clauses, steps = [f"{labels[0]} {_word(value)}"], [f"{labels[0]} {_word(value)}"]
    for label in labels[1:]:
        operator, negated, operand = rng.choice(("and", "or")), rng.random() < 0.5, rng.random() < 0.5
        meant = operand != negated
        value = (value and meant) if operator == "and" else (value or meant)
        clauses.append(f"{label} {operator} {'not ' if negated else ''}{_word(operand)}")
        steps.append(f"{label} {operator} {_word(meant)}={_word(value)}")
    chain = ";".join(clauses)
    return Problem(
        domain="logic",
        kind="truth",
        key=f"logic:{chain}",
        question=f"logic: {chain};result?",
        trace=";".join(steps),
        answer=_word(value),
        wrong=(_word(not value),),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"
