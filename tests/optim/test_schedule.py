"""Schedules at their ends and borders."""

import pytest

from arcforge.optim.schedule import linear, warmup_cosine


def test_warmup_rises_to_the_peak_and_cosine_falls_to_the_floor():
    rates = [warmup_cosine(step, total=100, warmup=10, floor=0.2) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.6) and rates[100] == pytest.approx(0.2)
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert warmup_cosine(500, 100, 10, 0.2) == pytest.approx(0.2)


def test_a_plan_of_one_step_has_a_rate():
    assert warmup_cosine(0, total=1, warmup=1, floor=0.1) == 1.0
    assert linear(0, total=1, first=1.0, last=0.05) == 1.0


def test_linear_goes_from_first_to_last():
    assert [linear(step, 5, 1.0, 0.2) for step in range(6)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
