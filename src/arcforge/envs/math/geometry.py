"""geometry: areas, lengths and chords, exact values with roots."""

from __future__ import annotations

import random
from fractions import Fraction

from arcforge.envs.levelled import Exercise
from arcforge.envs.math.notation import exercise, is_square, latex, surd

KIND = "geometry"


def make(rng: random.Random, level: int) -> Exercise:
    return (_rectangle, _hypotenuse, _coordinates, _chord, _three_sides)[level - 1](rng)


def _rectangle(rng: random.Random) -> Exercise:
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    return exercise(
        KIND, 1, ("rectangle", a, b),
        f"A rectangle has the perimeter {2 * (a + b)} and one side of length {a}. What is its area?",
        f"The other side is ${a + b} - {a} = {b}$, so the area is ${a} \\cdot {b} = {a * b}$.",
        a * b,
    )  # fmt: skip


def _hypotenuse(rng: random.Random) -> Exercise:
    while True:
        a, b = rng.randint(1, 30), rng.randint(1, 30)
        if not is_square(a * a + b * b):
            break
    square = a * a + b * b
    return exercise(
        KIND, 2, ("hypotenuse", *sorted((a, b))),
        f"The legs of a right triangle are {a} and {b}. What is the exact length of the hypotenuse?",
        f"$\\sqrt{{{a}^2 + {b}^2}} = \\sqrt{{{square}}} = {surd(square)}$.",
        surd(square),
        (str(square), str(a + b), f"\\sqrt{{{square + 1}}}", surd(square, 2)),
    )  # fmt: skip


def _coordinates(rng: random.Random) -> Exercise:
    while True:
        points = [(rng.randint(-9, 9), rng.randint(-9, 9)) for _ in range(3)]
        (ax, ay), (bx, by), (cx, cy) = points
        twice = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if twice:
            break
    answer = Fraction(abs(twice), 2)
    return exercise(
        KIND, 3, ("triangle", tuple(sorted(points))),
        f"What is the area of the triangle with the corners {', '.join(f'$({x}, {y})$' for x, y in points)}?",
        f"Half of $|({bx - ax}) \\cdot ({cy - ay}) - ({cx - ax}) \\cdot ({by - ay})| = {abs(twice)}$ is ${latex(answer)}$.",
        answer,
    )  # fmt: skip


def _chord(rng: random.Random) -> Exercise:
    while True:
        radius = rng.randint(4, 40)
        distance = rng.randint(1, radius - 1)
        if not is_square(radius**2 - distance**2):
            break
    square = radius**2 - distance**2
    return exercise(
        KIND, 4, ("chord", radius, distance),
        f"A chord of a circle of radius {radius} is {distance} away from the centre. What is its exact length?",
        f"Half of the chord is $\\sqrt{{{radius}^2 - {distance}^2}} = \\sqrt{{{square}}}$, so the chord is ${surd(square, 2)}$.",
        surd(square, 2),
        (surd(square), str(square), surd(square + 1, 2), surd(square, 4)),
    )  # fmt: skip


def _three_sides(rng: random.Random) -> Exercise:
    while True:
        a, b, c = sorted(rng.randint(4, 30) for _ in range(3))
        sixteenth = (a + b + c) * (-a + b + c) * (a - b + c) * (a + b - c)
        if a + b > c and not is_square(sixteenth):
            break
    answer = surd(sixteenth, Fraction(1, 4))
    return exercise(
        KIND, 5, ("sides", a, b, c),
        f"A triangle has sides of length {a}, {b} and {c}. What is its exact area?",
        f"By Heron's formula $16 A^2 = {a + b + c} \\cdot {-a + b + c} \\cdot {a - b + c} \\cdot {a + b - c} = {sixteenth}$, "
        f"so $A = {answer}$.",
        answer,
        (surd(sixteenth), surd(sixteenth, Fraction(1, 2)), surd(sixteenth + 1, Fraction(1, 4))),
    )  # fmt: skip
