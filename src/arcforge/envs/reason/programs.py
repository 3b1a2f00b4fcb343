"""code: a call of one of several functions of one operation (`r+7` adds 7), sometimes inside a sum; the trace looks the
function up and fills its argument in."""

from __future__ import annotations

import random

from arcforge.envs.reason.problem import DIGITS, LETTERS, Problem, other_digits, step

FUNCTIONS = 3


def make(rng: random.Random) -> Problem:
    names = rng.sample(LETTERS, FUNCTIONS)
    called = rng.randrange(FUNCTIONS)
    argument = rng.choice(DIGITS)
    operations = [step(argument, rng) for _ in names]
    sign, operand, value = operations[called]
    call, near = f"{names[called]}({argument})", [argument]
    trace = f">{names[called]}{sign}{operand}:{argument}{sign}{operand}={value}"
    if rng.random() < 0.5:
        near.append(value)
        outer, added, total = step(value, rng)
        call += f"{outer}{added}"
        trace += f";{value}{outer}{added}={total}"
        value = total
    functions = ";".join(f"{name}{sign}{operand}" for name, (sign, operand, _) in zip(names, operations))
    program = f"{functions}>{call}"
    return Problem(
        domain="code",
        kind="call",
        key=f"code:{program}",
        question=f"code: {program}",
        trace=trace,
        answer=str(value),
        wrong=other_digits(value, near=tuple(near)),
    )
