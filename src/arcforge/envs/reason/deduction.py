"""logic: where a chain of replacements ends, and chains of and, or, not read from left to right."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.reason.problem import Problem

RULES, STEPS = 4, 3
CLAUSE_LETTERS = "bcde"


def make(rng: random.Random) -> Problem:
    return _replacements(rng) if rng.random() < 0.6 else _truth(rng)


def _replacements(rng: random.Random) -> Problem:
    """STEPS rules lead from the name asked for to the answer, the others lead elsewhere. The trace follows them."""
    names = rng.sample(NAMES, STEPS + 1 + 2 * (RULES - STEPS))
    path, rest = names[: STEPS + 1], names[STEPS + 1 :]
    rules = [*zip(path, path[1:]), *zip(rest[::2], rest[1::2])]
    rng.shuffle(rules)
    question = f"logic: {';'.join(f'{a}={b}' for a, b in rules)}>{path[0]}?"
    return Problem(
        domain="logic",
        kind="replacements",
        key=f"logic:{';'.join(f'{a}={b}' for a, b in sorted(rules))}>{path[0]}",
        question=question,
        trace=">" + "=".join(path),
        answer=path[-1],
        wrong=tuple(dict.fromkeys(name for pair in rules for name in pair if name != path[-1])),
    )


def _truth(rng: random.Random) -> Problem:
    """Clauses are lettered, so that a step of the trace says which one it is about."""
    value = rng.random() < 0.5
    clauses, steps = [f"a {_word(value)}"], [f"a {_word(value)}"]
    for letter in CLAUSE_LETTERS:
        operator, negated, operand = rng.choice(("and", "or")), rng.random() < 0.5, rng.random() < 0.5
        meant = operand != negated
        value = (value and meant) if operator == "and" else (value or meant)
        clauses.append(f"{letter} {operator} {'not ' if negated else ''}{_word(operand)}")
        steps.append(f"{letter} {operator} {_word(meant)}={_word(value)}")
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
