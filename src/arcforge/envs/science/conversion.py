"""conversion: single units, speeds, areas and volumes, densities, flows."""

from __future__ import annotations

import random

from arcforge.envs.levelled import Exercise
from arcforge.envs.science.quantity import exercise, written

KIND = "conversion"

# Unit, size in the first unit of its row.
SIMPLE = (
    (("m", 1.0), ("km", 1e3), ("cm", 1e-2), ("mm", 1e-3), ("ft", 0.3048), ("inch", 0.0254), ("mile", 1609.344)),
    (("kg", 1.0), ("g", 1e-3), ("mg", 1e-6), ("lb", 0.45359237), ("ounce", 0.028349523125)),
    (("L", 1.0), ("mL", 1e-3), ("m^3", 1e3), ("cm^3", 1e-3)),
    (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0)),
    (("J", 1.0), ("kJ", 1e3), ("kWh", 3.6e6), ("cal", 4.184)),
    (("Pa", 1.0), ("kPa", 1e3), ("bar", 1e5), ("atm", 101325.0)),
)
POWERS = (("m", 1.0), ("cm", 1e-2), ("mm", 1e-3), ("km", 1e3), ("ft", 0.3048), ("inch", 0.0254))
MASSES, VOLUMES, TIMES = SIMPLE[1][:4], (("m^3", 1.0), ("L", 1e-3), ("cm^3", 1e-6), ("mL", 1e-6)), SIMPLE[3]
Unit = tuple[str, float]


def make(rng: random.Random, level: int) -> Exercise:
    return (_simple, _speed, _area_or_volume, _density, _flow)[level - 1](rng)


def _amount(rng: random.Random) -> float:
    return rng.randint(105, 9990) / rng.choice((10, 100))


def _ask(
    level: int, value: float, units: tuple[str, str], sizes: tuple[float, float], how: str, wrong_unit: str
) -> Exercise:
    """`value` of the first unit in the second; sizes: of both in one and the same unit."""
    answer = value * sizes[0] / sizes[1]
    return exercise(
        KIND, level, (value, *units),
        f"Convert {value:g} {units[0]} to {units[1]}.",
        f"{how} ${value:g} \\cdot \\frac{{{sizes[0]:g}}}{{{sizes[1]:g}}} = {written(answer)}$.",
        answer, units[1], wrong_unit,
    )  # fmt: skip


def _simple(rng: random.Random) -> Exercise:
    row = rng.choice(SIMPLE)
    (a, size_a), (b, size_b) = rng.sample(row, 2)
    how = f"In {row[0][0]}, one {a} is {size_a:g} and one {b} is {size_b:g}:"
    return _ask(1, _amount(rng), (a, b), (size_a, size_b), how, "kg" if row is not SIMPLE[1] else "m")


def _speed(rng: random.Random) -> Exercise:
    (a, length_a), (b, length_b) = rng.sample(SIMPLE[0], 2)
    (s, time_a), (t, time_b) = rng.sample(SIMPLE[3][:3], 2)
    how = f"In m/s, one {a}/{s} is {length_a / time_a:g} and one {b}/{t} is {length_b / time_b:g}:"
    return _ask(2, _amount(rng), (f"{a}/{s}", f"{b}/{t}"), (length_a / time_a, length_b / time_b), how, b)


def _area_or_volume(rng: random.Random) -> Exercise:
    power = rng.choice((2, 3))
    (a, size_a), (b, size_b) = rng.sample(POWERS, 2)
    how = f"One {a} is {size_a:g} m and one {b} is {size_b:g} m; to the power {power}:"
    return _ask(3, _amount(rng), (f"{a}^{power}", f"{b}^{power}"), (size_a**power, size_b**power), how, b)


def _density(rng: random.Random) -> Exercise:
    (a, mass_a), (b, mass_b) = rng.sample(MASSES, 2)
    (v, volume_a), (w, volume_b) = rng.sample(VOLUMES[:3], 2)
    how = f"In kg/m^3, one {a}/{v} is {mass_a / volume_a:g} and one {b}/{w} is {mass_b / volume_b:g}:"
    return _ask(4, _amount(rng), (f"{a}/{v}", f"{b}/{w}"), (mass_a / volume_a, mass_b / volume_b), how, b)


def _flow(rng: random.Random) -> Exercise:
    """A mass flow of a liquid of known density, as a volume flow in other units."""
    density, rate = rng.randint(650, 1900), _amount(rng)
    (a, mass), (s, time_a) = rng.choice(MASSES), rng.choice(TIMES[:3])
    (w, volume), (t, time_b) = rng.choice(VOLUMES[:3]), rng.choice(TIMES[:3])
    cubic_metres = rate * mass / time_a / density
    answer = cubic_metres * time_b / volume
    return exercise(
        KIND, 5, ("flow", density, rate, a, s, w, t),
        f"A liquid of density {density} kg/m^3 flows at {rate:g} {a}/{s}. What is its volume flow?",
        f"${rate:g}$ {a}/{s} is ${written(rate * mass / time_a)}$ kg/s; divided by the density this is ${written(cubic_metres)}$ "
        f"m^3/s, which is ${written(answer)}$ {w}/{t}.",
        answer, f"{w}/{t}", w,
    )  # fmt: skip
