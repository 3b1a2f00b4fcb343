"""math: a chain of additions and subtractions that stays between 0 and 9; the trace is the running total."""

from __future__ import annotations

import random

from arcforge.envs.reason.problem import DIGITS, Problem, other_digits, step

WORDS = {"+": "add", "-": "take"}


def make(rng: random.Random) -> Problem:
    first = total = rng.choice(DIGITS)
    orders, steps, totals = [f"start {first}"], [], [first]
    for _ in range(rng.choice((4, 5))):
        sign, operand, result = step(total, rng)
        orders.append(f"{WORDS[sign]} {operand}")
        steps.append(f"{total}{sign}{operand}={result}")
        total = result
        totals.append(total)
    chain = ";".join(orders)
    return Problem(
        domain="math",
        kind="chain",
        key=f"math:{chain}",
        question=f"math: {chain}",
        trace=";".join(steps),
        answer=str(total),
        wrong=other_digits(total, near=(totals[-2], totals[-3])),
    )
