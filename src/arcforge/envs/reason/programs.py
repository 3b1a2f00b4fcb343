"""code: assignments that refer to earlier variables; the trace resolves one statement after another.

Each step repeats the statement with every variable followed by its value, then states the new value: `c=b7-2;c5`.
"""

from __future__ import annotations

import random

from arcforge.envs.reason.problem import DIGITS, LETTERS, Problem, other_digits, step

STATEMENTS = 4
SHARE_OF_PAIRS = 0.3  # of statements that have two variables, where the values allow


def make(rng: random.Random) -> Problem:
    names = rng.sample(LETTERS, STATEMENTS)
    values = {names[0]: rng.choice(DIGITS)}
    lines, steps = [f"{names[0]}={values[names[0]]}"], [f"{names[0]}{values[names[0]]}"]
    for name in names[1:]:
        line, worked, value = _statement(values, rng)
        values[name] = value
        lines.append(f"{name}={line}")
        steps.append(f"{name}={worked};{name}{value}")
    asked = rng.choice(names[-2:])
    program = ";".join([*lines, f"print({asked})"])
    return Problem(
        domain="code",
        kind="assignments",
        key=f"code:{program}",
        question=f"code: {program}",
        trace=";".join(steps[: names.index(asked) + 1]),
        answer=str(values[asked]),
        wrong=other_digits(values[asked], near=tuple(value for name, value in values.items() if name != asked)),
    )


def _statement(values: dict[str, int], rng: random.Random) -> tuple[str, str, int]:
    """(right-hand side, the same with values, result); results stay between 0 and 9."""
    left = rng.choice(list(values))
    pairs = [
        (sign, name) for name in values for sign in "+-" if name != left and 0 <= _apply(values, left, sign, name) <= 9
    ]
    if pairs and rng.random() < SHARE_OF_PAIRS:
        sign, right = rng.choice(pairs)
        return (
            f"{left}{sign}{right}",
            f"{left}{values[left]}{sign}{right}{values[right]}",
            _apply(values, left, sign, right),
        )
    sign, operand, result = step(values[left], rng)
    return f"{left}{sign}{operand}", f"{left}{values[left]}{sign}{operand}", result


def _apply(values: dict[str, int], left: str, sign: str, right: str) -> int:
    return values[left] + values[right] if sign == "+" else values[left] - values[right]
