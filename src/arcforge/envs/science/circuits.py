"""circuits: Ohm's law, series and parallel, dividers, stored energy, RC charging, resonance, RLC impedance, two sources."""

from __future__ import annotations

import random
from math import log, pi, sqrt

from arcforge.envs.levelled import Exercise
from arcforge.envs.science.quantity import exercise, written

KIND = "circuits"


def make(rng: random.Random, level: int) -> Exercise:
    return rng.choice(((_ohm, _electric_power), (_series, _parallel), (_divider, _charge), (_charging, _resonance), (_impedance, _two_sources))[
        level - 1
    ])(rng)  # fmt: skip


def _ohm(rng: random.Random) -> Exercise:
    voltage, resistance = rng.randint(10, 480) / 2, rng.randint(2, 900)
    answer = voltage / resistance * 1000
    return exercise(
        KIND, 1, ("ohm", voltage, resistance),
        f"What current flows through {resistance} ohm at {voltage:g} V?",
        f"$I = U / R = {voltage:g} / {resistance} = {written(answer / 1000)}$ A $= {written(answer)}$ mA.",
        answer, "mA", "V",
    )  # fmt: skip


def _electric_power(rng: random.Random) -> Exercise:
    voltage, current = rng.randint(3, 400), rng.randint(2, 300) / 10
    return exercise(
        KIND, 1, ("power", voltage, current),
        f"A heater draws {current:g} A at {voltage} V. What is its power?",
        f"$P = U I = {voltage} \\cdot {current:g} = {written(voltage * current)}$ W.",
        voltage * current, "W", "V",
    )  # fmt: skip


def _series(rng: random.Random) -> Exercise:
    resistances = [rng.randint(5, 500) for _ in range(3)]
    voltage, place = rng.randint(3, 60), rng.randrange(3)
    answer = voltage * resistances[place] / sum(resistances)
    told = ", ".join(f"{r} ohm" for r in resistances)
    return exercise(
        KIND, 2, ("series", voltage, tuple(resistances), place),
        f"Resistors of {told} are in series at {voltage} V. What is the voltage across the one of {resistances[place]} ohm?",
        f"The current is ${voltage} / {sum(resistances)} = {written(voltage / sum(resistances))}$ A, so the voltage is ${written(answer)}$ V.",
        answer, "V", "A",
    )  # fmt: skip


def _parallel(rng: random.Random) -> Exercise:
    resistances = [rng.randint(5, 500) for _ in range(3)]
    answer = 1 / sum(1 / r for r in resistances)
    told = " + ".join(f"1/{r}" for r in resistances)
    return exercise(
        KIND, 2, ("parallel", *sorted(resistances)),
        f"What is the resistance of {', '.join(map(str, resistances))} ohm in parallel?",
        f"$1/R = {told} = {written(1 / answer)}$, so $R = {written(answer)}$ ohm.",
        answer, "ohm", "V",
    )  # fmt: skip


def _divider(rng: random.Random) -> Exercise:
    r1, r2, load = (rng.randint(10, 900) for _ in range(3))
    voltage = rng.randint(3, 48)
    lower = r2 * load / (r2 + load)
    answer = voltage * lower / (r1 + lower)
    return exercise(
        KIND, 3, ("divider", voltage, r1, r2, load),
        f"A divider of {r1} ohm above {r2} ohm is at {voltage} V; a load of {load} ohm is connected across the lower resistor. "
        "What is the voltage across the load?",
        f"{r2} and {load} ohm in parallel are ${written(lower)}$ ohm, so the voltage is "
        f"${voltage} \\cdot {written(lower)} / {written(r1 + lower)} = {written(answer)}$ V.",
        answer, "V", "A",
    )  # fmt: skip


def _charge(rng: random.Random) -> Exercise:
    a, b, voltage = rng.randint(10, 900), rng.randint(10, 900), rng.randint(5, 100)
    series = a * b / (a + b)
    answer = 0.5 * series * 1e-6 * voltage**2 * 1000
    return exercise(
        KIND, 3, ("capacitors", *sorted((a, b)), voltage),
        f"Capacitors of {a} µF and {b} µF in series are charged to {voltage} V in all. What energy do they store?",
        f"In series they have ${written(series)}$ µF, and $\\frac{{1}}{{2}} C U^2 = {written(answer)}$ mJ.",
        answer, "mJ", "mW",
    )  # fmt: skip


def _charging(rng: random.Random) -> Exercise:
    resistance, capacity = rng.randint(10, 900), rng.randint(10, 900)
    voltage = rng.randint(6, 48)
    reached = rng.randint(1, voltage - 1)
    constant = resistance * 1e3 * capacity * 1e-6
    answer = -constant * log(1 - reached / voltage)
    return exercise(
        KIND, 4, ("charging", resistance, capacity, voltage, reached),
        f"A capacitor of {capacity} µF charges from empty through {resistance} kΩ at {voltage} V. After what time is it at {reached} V?",
        f"The time constant is ${written(constant)}$ s, and $-\\tau \\ln(1 - {reached}/{voltage}) = {written(answer)}$ s.",
        answer, "s", "V",
    )  # fmt: skip


def _resonance(rng: random.Random) -> Exercise:
    inductance, capacity = rng.randint(10, 900), rng.randint(10, 900)
    answer = 1 / (2 * pi * sqrt(inductance * 1e-3 * capacity * 1e-9)) / 1000
    return exercise(
        KIND, 4, ("resonance", inductance, capacity),
        f"At what frequency is a circuit of {inductance} mH and {capacity} nF in resonance?",
        f"$f = \\frac{{1}}{{2\\pi\\sqrt{{LC}}}} = {written(answer)}$ kHz.",
        answer, "kHz", "ms",
    )  # fmt: skip


def _impedance(rng: random.Random) -> Exercise:
    r, inductance, capacity = rng.randint(10, 400), rng.randint(10, 900), rng.randint(2, 100)
    frequency, voltage = rng.randint(40, 900), rng.randint(5, 240)
    x = 2 * pi * frequency * inductance * 1e-3 - 1 / (2 * pi * frequency * capacity * 1e-6)
    z = sqrt(r * r + x * x)
    answer = voltage / z * 1000
    return exercise(
        KIND, 5, ("impedance", r, inductance, capacity, frequency, voltage),
        f"{r} ohm, {inductance} mH and {capacity} µF are in series at {voltage} V (effective) and {frequency} Hz. "
        "What is the effective current?",
        f"The reactance is ${written(x)}$ ohm, so $|Z| = {written(z)}$ ohm and the current is ${written(answer)}$ mA.",
        answer, "mA", "ohm",
    )  # fmt: skip


def _two_sources(rng: random.Random) -> Exercise:
    u1, u2 = rng.randint(5, 60), rng.randint(5, 60)
    r1, r2, r3 = (rng.randint(5, 300) for _ in range(3))
    node = (u1 / r1 + u2 / r2) / (1 / r1 + 1 / r2 + 1 / r3)
    answer = node / r3 * 1000
    return exercise(
        KIND, 5, ("two sources", u1, r1, u2, r2, r3),
        f"Sources of {u1} V with {r1} ohm in series and {u2} V with {r2} ohm in series feed, with equal polarity and in parallel, "
        f"a resistor of {r3} ohm. What current flows through that resistor?",
        f"The node is at $\\frac{{{u1}/{r1} + {u2}/{r2}}}{{1/{r1} + 1/{r2} + 1/{r3}}} = {written(node)}$ V, so the current is "
        f"${written(answer)}$ mA.",
        answer, "mA", "ohm",
    )  # fmt: skip
