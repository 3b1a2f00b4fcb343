"""mechanics: motion, forces, energy, collisions, an incline with friction. g = 9.81 m/s^2."""

from __future__ import annotations

import random
from math import cos, radians, sin, sqrt

from arcforge.envs.levelled import Exercise
from arcforge.envs.science.quantity import exercise, written

KIND = "mechanics"
G = 9.81
TOLD = "Use g = 9.81 m/s^2."


def make(rng: random.Random, level: int) -> Exercise:
    return rng.choice(((_force, _distance), (_braking, _kinetic), (_fall, _power), (_collision, _spring), (_incline, _projectile))[
        level - 1
    ])(rng)  # fmt: skip


def _force(rng: random.Random) -> Exercise:
    mass, acceleration = rng.randint(10, 900) / 10, rng.randint(5, 120) / 10
    answer = mass * acceleration
    return exercise(
        KIND, 1, ("force", mass, acceleration),
        f"What net force gives a body of {mass:g} kg an acceleration of {acceleration:g} m/s^2?",
        f"$F = m a = {mass:g} \\cdot {acceleration:g} = {written(answer)}$ N.",
        answer, "N", "J",
    )  # fmt: skip


def _distance(rng: random.Random) -> Exercise:
    speed, minutes = rng.randint(20, 180), rng.randint(4, 200)
    answer = speed * minutes / 60
    return exercise(
        KIND, 1, ("distance", speed, minutes),
        f"A train goes at {speed} km/h for {minutes} min. How far does it get?",
        f"{minutes} min are {written(minutes / 60)} h: ${speed} \\cdot {written(minutes / 60)} = {written(answer)}$ km.",
        answer, "km", "km/h",
    )  # fmt: skip


def _braking(rng: random.Random) -> Exercise:
    speed, deceleration = rng.randint(30, 160), rng.randint(20, 95) / 10
    v = speed / 3.6
    answer = v * v / (2 * deceleration)
    return exercise(
        KIND, 2, ("braking", speed, deceleration),
        f"A car at {speed} km/h brakes with a constant deceleration of {deceleration:g} m/s^2. How far does it go until it stands?",
        f"$v = {written(v)}$ m/s, and $\\frac{{v^2}}{{2a}} = {written(answer)}$ m.",
        answer, "m", "s",
    )  # fmt: skip


def _kinetic(rng: random.Random) -> Exercise:
    mass, speed = rng.randint(500, 3000), rng.randint(20, 150)
    answer = 0.5 * mass * (speed / 3.6) ** 2 / 1000
    return exercise(
        KIND, 2, ("kinetic", mass, speed),
        f"What is the kinetic energy of a car of {mass} kg at {speed} km/h?",
        f"$v = {written(speed / 3.6)}$ m/s, and $\\frac{{1}}{{2}} m v^2 = {written(answer)}$ kJ.",
        answer, "kJ", "kW",
    )  # fmt: skip


def _fall(rng: random.Random) -> Exercise:
    height, start = rng.randint(20, 900) / 10, rng.randint(0, 150) / 10
    answer = sqrt(start**2 + 2 * G * height)
    return exercise(
        KIND, 3, ("fall", height, start),
        f"A stone is thrown down at {start:g} m/s from {height:g} m above the ground. Without drag, how fast does it hit the ground? {TOLD}",
        f"$\\sqrt{{{start:g}^2 + 2 \\cdot 9.81 \\cdot {height:g}}} = {written(answer)}$ m/s.",
        answer, "m/s", "m",
    )  # fmt: skip


def _power(rng: random.Random) -> Exercise:
    mass, height, seconds, efficiency = (
        rng.randint(50, 2000),
        rng.randint(20, 600) / 10,
        rng.randint(5, 120),
        rng.randint(50, 95),
    )
    answer = mass * G * height / seconds / (efficiency / 100) / 1000
    return exercise(
        KIND, 3, ("power", mass, height, seconds, efficiency),
        f"A hoist of {efficiency}% efficiency lifts {mass} kg by {height:g} m in {seconds} s. What power does it draw? {TOLD}",
        f"The lifting work is ${written(mass * G * height)}$ J; over {seconds} s and {efficiency}% this is ${written(answer)}$ kW.",
        answer, "kW", "kJ",
    )  # fmt: skip


def _collision(rng: random.Random) -> Exercise:
    m1, m2 = rng.randint(5, 90) / 10, rng.randint(5, 90) / 10
    v1, v2 = rng.randint(30, 120) / 10, rng.randint(1, 25) / 10
    common = (m1 * v1 + m2 * v2) / (m1 + m2)
    answer = 0.5 * m1 * v1**2 + 0.5 * m2 * v2**2 - 0.5 * (m1 + m2) * common**2
    return exercise(
        KIND, 4, ("collision", m1, v1, m2, v2),
        f"A cart of {m1:g} kg at {v1:g} m/s runs into one of {m2:g} kg that rolls ahead of it at {v2:g} m/s in the same direction. "
        "They couple. How much kinetic energy is lost?",
        f"The common speed is ${written(common)}$ m/s by conservation of momentum; the energies differ by ${written(answer)}$ J.",
        answer, "J", "N",
    )  # fmt: skip


def _spring(rng: random.Random) -> Exercise:
    mass, stiffness, stretch = rng.randint(50, 900), rng.randint(20, 900), rng.randint(10, 200) / 10
    answer = stretch / 100 * sqrt(stiffness / (mass / 1000))
    return exercise(
        KIND, 4, ("spring", mass, stiffness, stretch),
        f"A body of {mass} g on a spring of {stiffness} N/m swings without friction with an amplitude of {stretch:g} cm. "
        "What is its greatest speed?",
        f"$A \\sqrt{{k/m}} = {stretch / 100:g} \\cdot \\sqrt{{{stiffness} / {mass / 1000:g}}} = {written(answer)}$ m/s.",
        answer, "m/s", "m/s^2",
    )  # fmt: skip


def _incline(rng: random.Random) -> Exercise:
    angle, friction, length = rng.randint(20, 60), rng.randint(5, 30) / 100, rng.randint(10, 200) / 10
    acceleration = G * (sin(radians(angle)) - friction * cos(radians(angle)))
    answer = sqrt(2 * length / acceleration)
    return exercise(
        KIND, 5, ("incline", angle, friction, length),
        f"A block slides from rest down {length:g} m of a plane inclined by {angle} degrees with a coefficient of kinetic friction of "
        f"{friction:g}. How long does it take? {TOLD}",
        f"$a = g(\\sin\\alpha - \\mu\\cos\\alpha) = {written(acceleration)}$ m/s^2 and $\\sqrt{{2s/a}} = {written(answer)}$ s.",
        answer, "s", "m/s",
    )  # fmt: skip


def _projectile(rng: random.Random) -> Exercise:
    speed, angle, height = rng.randint(50, 400) / 10, rng.randint(15, 75), rng.randint(5, 300) / 10
    up, along = speed * sin(radians(angle)), speed * cos(radians(angle))
    time = (up + sqrt(up * up + 2 * G * height)) / G
    return exercise(
        KIND, 5, ("projectile", speed, angle, height),
        f"A ball is thrown from {height:g} m above level ground at {speed:g} m/s, {angle} degrees above the horizontal. "
        f"How far from the point below the throw does it land, without drag? {TOLD}",
        f"It flies for ${written(time)}$ s, while it moves at ${written(along)}$ m/s along the ground: ${written(along * time)}$ m.",
        along * time, "m", "m/s",
    )  # fmt: skip
