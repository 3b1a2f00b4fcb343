"""The family science: its generators against their own checker, and the traps of units."""

import asyncio

import pytest
from levelled_checks import (
    DirectChecker,
    hold_solutions_to_their_exercises,
    hold_splits_apart,
    hold_to_the_protocol,
    reward,
)

from arcforge.core.errors import TaskError
from arcforge.envs.checking import quantities
from arcforge.envs.science.family import ScienceFamily
from arcforge.envs.science.scorer import QuantityScorer
from arcforge.envs.science.stoichiometry import ATOMS, REACTIONS, molar_mass

DIRECT = QuantityScorer(DirectChecker(quantities))


def direct_family(seed=0, **options):
    family = ScienceFamily(seed, **options)
    family.scorer = DIRECT
    return family


def equal(value, unit, answer, tolerance=0.01):
    read = quantities.read_reference({"value": value, "unit": unit, "tolerance": tolerance})
    try:
        return quantities.compare(read, answer)[0]
    except Exception:
        return False


def test_it_is_a_levelled_family():
    hold_to_the_protocol(ScienceFamily(), ScienceFamily(), ScienceFamily(1))


def test_every_exercise_is_worked_out_by_itself():
    hold_solutions_to_their_exercises(ScienceFamily(2), 200)


def test_splits_never_meet_whatever_the_seed():
    hold_splits_apart([ScienceFamily(0), ScienceFamily(1)], 200)


@pytest.mark.parametrize("kind", ScienceFamily.makers)
def test_hundreds_of_solutions_pass_and_wrong_values_and_units_fail(kind):
    family = direct_family(3, kinds=(kind,))
    for index in range(120):
        exercise = family.exercise("train", index)
        assert len(exercise.wrong) == 4
        asyncio.run(family.validate("train", index))


@pytest.mark.parametrize("kind", ScienceFamily.makers)
def test_three_significant_digits_are_enough_in_any_unit_of_the_dimension(kind):
    family = ScienceFamily(5, kinds=(kind,))
    for index in range(60):
        quantity = family.exercise("train", index).reference["quantity"]
        assert equal(quantity["value"], quantity["unit"], f"{quantity['value']:.3g} {quantity['unit']}")
        base = quantities._REGISTRY.Quantity(quantity["value"], quantity["unit"]).to_base_units()
        assert equal(quantity["value"], quantity["unit"], f"{base.magnitude:.6e} {base.units}"), base


@pytest.mark.parametrize("kind", ("mechanics", "circuits"))
def test_there_are_two_kinds_of_problem_at_every_level(kind):
    for level in (1, 2, 3, 4, 5):
        family = ScienceFamily(kinds=(kind,), levels=(level,))
        assert len({family.exercise("train", index).facts[0] for index in range(30)}) == 2


def test_reactions_are_balanced():
    for left, right in REACTIONS:
        masses = [sum(count * molar_mass(formula) for formula, count in side.items()) for side in (left, right)]
        assert masses[0] == pytest.approx(masses[1], rel=1e-9)
    assert molar_mass("C6H12O6") == pytest.approx(180.156, abs=0.01) and len(ATOMS) > 10


RIGHT = [
    (9.81, "m/s^2", "9.8 m/s²"), (9.81, "m/s^2", r"9.81\ \mathrm{m/s^2}"), (9.81, "m/s^2", r"9.81 \frac{m}{s^2}"),
    (9.81, "m/s^2", r"9.81\ \frac{\text{m}}{\text{s}^2}"), (9.81, "m/s^2", r"9.81\ \text{m s}^{-2}"), (9.81, "m/s^2", "981 cm/s^2"),
    (9.81, "m/s^2", r"0.981\times 10^1 m/s^2"), (9.81, "m/s^2", "9.81 N/kg"), (9.81, "m/s^2", "35.3 km/h/s"),
    (300, "K", "26.85 °C"), (25, "degC", r"25^\circ\text{C}"), (25, "degC", "298.15 K"), (12000, "m", "12,000 m"),
    (12000, "m", r"12\,000\ \text{m}"), (1e-5, "m", r"1\times10^{-5}\,\text{m}"), (1e-5, "m", "1e-5 m"), (2, "A", "2 amps"),
    (5, "uF", r"5\ \mu\text{F}"), (5, "kohm", r"5\,\text{k}\Omega"), (5, "ohm", "5 Ω"), (2, "mol/L", "2 M"), (2, "N", "2 kg m/s^2"),
    (3, "m^3", "3 m3"), (5, "km/h", "5 kmh"), (7, "J", r"7\ \text{N}\cdot\text{m}"), (10, "h", "600 min"), (10, "inch", "10 in"),
    (12.5, "mA", r"1.25 \times 10^{-2} \text{ A}"), (-40, "degC", "-40 degF"),
]  # fmt: skip
WRONG = [
    (9.81, "m/s^2", "9.81"), (9.81, "m/s^2", "m/s^2"), (9.81, "m/s^2", "9.81 m/s"), (9.81, "m/s^2", "9.7 m/s^2"),
    (9.81, "m/s^2", "-9.81 m/s^2"), (9.81, "m/s^2", "9.81 m/s^2 or 5 m/s^2"), (9.81, "m/s^2", "5 m/s^2 9.81 m/s^2"),
    (9.81, "m/s^2", "4.905*2 m/s^2"), (9.81, "m/s^2", "9.81 m/s^2^99999999"), (9.81, "m/s^2", "nan m/s^2"),
    (9.81, "m/s^2", "1e400 m/s^2"), (9.81, "m/s^2", "9,81 m/s^2"), (9.81, "m/s^2", "about 9.81 m/s^2"), (2, "mA", "2 MA"),
    (2, "mA", "2 A"), (5, "g", "5 G"), (25, "degC", "25 K"), (25, "degC", "25 C"), (5, "m", "5 min"), (1, "kWh", "1 kW"),
    (5, "m/s", "5 ms^-1"), (5, "N", "5 __import__('os')"), (5, "N", "5 N; 6 N"), (5, "N", ""), (5, "N", "5 newtonsecond"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "unit", "answer"), RIGHT)
def test_ways_to_write_a_quantity(value, unit, answer):
    assert equal(value, unit, answer)


@pytest.mark.parametrize(("value", "unit", "answer"), WRONG)
def test_traps_of_numbers_and_units(value, unit, answer):
    assert not equal(value, unit, answer)


def test_it_is_graded_through_the_checking_process():
    async def run():
        family = ScienceFamily()
        try:
            task = family.task("test", 1)
            assert await reward(task, f"So \\boxed{{{task.reference['answer']}}}") == 1.0
            assert await reward(task, "So it is.") == 0.0
            assert await reward(task, r"\boxed{1 parsec}") == 0.0
            with pytest.raises(TaskError, match="no quantity"):
                await family.scorer.score([*task.messages, family.reply("5")], {})
            with pytest.raises(TaskError, match="nounit"):
                bad = {"quantity": {"value": 1.0, "unit": "nounit", "tolerance": 0.01}}
                await family.scorer.score([*task.messages, family.reply("5 m")], bad)
        finally:
            await family.close()

    asyncio.run(run())
