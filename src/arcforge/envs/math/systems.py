"""systems: two or three linear equations; the answer is a tuple in the order of the unknowns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, latex

KIND = "systems"
UNKNOWNS = "xyz"

Matrix = Sequence[Sequence[int]]


def make(rng: random.Random, level: int) -> Exercise:
    """Levels 3 and 5 have fractions as solutions, 4 and 5 three unknowns; level 1 is a sum and a difference."""
    size, largest = (2, 2, 2, 3, 3)[level - 1], (1, 5, 9, 4, 5)[level - 1]
    whole = level in (1, 2, 4)
    while True:
        entries = [n for n in range(-largest, largest + 1) if n]
        rows = [[rng.choice(entries) for _ in range(size)] for _ in range(size)]
        if determinant(rows):
            break
    if whole:
        solution = [Fraction(rng.randint(-20, 20) if level == 1 else rng.randint(-9, 9)) for _ in rows]
        right = [int(sum(a * x for a, x in zip(row, solution))) for row in rows]
    else:
        right = [rng.randint(-12, 12) for _ in rows]
        solution = cramer(rows, right)
    return _exercise(level, rows, right, solution)


def determinant(rows: Matrix) -> int:
    """By the first row."""
    if len(rows) == 1:
        return rows[0][0]
    minors = [[[*row[:i], *row[i + 1 :]] for row in rows[1:]] for i in range(len(rows))]
    return sum((-1) ** i * rows[0][i] * determinant(minor) for i, minor in enumerate(minors))


def cramer(rows: Matrix, right: Sequence[int]) -> list[Fraction]:
    whole = determinant(rows)
    replaced = [[[*row[:i], value, *row[i + 1 :]] for row, value in zip(rows, right)] for i in range(len(rows))]
    return [Fraction(determinant(matrix), whole) for matrix in replaced]


def _exercise(level: int, rows: Matrix, right: Sequence[int], solution: Sequence[Fraction]) -> Exercise:
    unknowns = UNKNOWNS[: len(rows)]
    equations = [f"{_side(row)} = {value}" for row, value in zip(rows, right)]
    whole = determinant(rows)
    steps = [f"${u} = \\frac{{{latex(x * whole)}}}{{{whole}}} = {latex(x)}$" for u, x in zip(unknowns, solution)]
    ordered = f"({', '.join(unknowns)})"
    wrong = [_tuple((solution[0] + 1, *solution[1:])), _tuple((*solution[:-1], solution[-1] + 1))]
    swapped = tuple(reversed(solution))
    return exercise(
        KIND, level, (tuple(map(tuple, rows)), tuple(right)),
        f"Solve the system ${'$, $'.join(equations)}$. Give the solution as the tuple ${ordered}$.",
        f"The determinant of the coefficients is {whole}. By Cramer's rule {', '.join(steps)}.",
        _tuple(solution),
        (*wrong, *([_tuple(swapped)] if swapped != tuple(solution) else [])),
    )  # fmt: skip


def _side(row: Sequence[int]) -> str:
    text = ""
    for value, unknown in zip(row, UNKNOWNS):
        sign = ("- " if text else "-") if value < 0 else "+ " if text else ""
        text += f"{sign}{abs(value) if abs(value) != 1 else ''}{unknown} "
    return text.strip()


def _tuple(values: Sequence[Fraction]) -> str:
    return f"({', '.join(map(latex, values))})"
