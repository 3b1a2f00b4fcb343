"""math: a chain of additions and subtractions that stays between 0 and 9; the trace is the running total.

Steps are lettered, so that a step of the trace says which one it is about: `b+4:3+4=7`.
"""

from __future__ import annotations

import random

from arcforge.envs.reason.problem import DIGITS, Problem, other_digits, step

STEP_LETTERS = "bcdefgh"


def make(rng: random.Random) -> Problem:
    first = total = rng.choice(DIGITS)
    orders, steps, totals = [f"a={first}"], [], [first]
    for letter in STEP_LETTERS[: rng.choice((3, 4, 4))]:
        sign, operand, result = step(total, rng)
        orders.append(f"{letter}{sign}{operand}")
        steps.append(f"{letter}{sign}{operand}:{total}{sign}{operand}={result}")
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
