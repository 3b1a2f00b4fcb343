"""Intervals against published values, and their coverage."""

import random

import pytest

from arcforge.evals.stats import bootstrap_mean, mcnemar, mean_interval, paired_difference, wilson


def pairs(both, gained, lost, neither):
    """(first, second) of a paired 2 x 2 table."""
    first = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    second = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    return first, second


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (50, 100, 0.4038, 0.5962),
        (0, 20, 0.0, 0.1611),  # Newcombe 1998, "Two-sided confidence intervals for the single proportion": 0/20
        (81, 263, 0.2553, 0.3662),  # the same, 81/263
        (15, 148, 0.0624, 0.1605),  # the same, 15/148
        (1, 29, 0.0061, 0.1718),  # the same, 1/29
    ],
)
def test_wilson(correct, total, low, high):
    interval = wilson(correct, total)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)
    assert interval.value == correct / total
    mirrored = wilson(total - correct, total)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high))


def test_wilson_holds_its_estimate_and_widens_with_confidence():
    for total in range(1, 40):
        for correct in range(total + 1):
            interval = wilson(correct, total)
            assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0
    assert wilson(5, 10, 0.99).low < wilson(5, 10).low < wilson(5, 10, 0.8).low


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(correct, total):
    with pytest.raises(ValueError, match="not a share"):
        wilson(correct, total)


@pytest.mark.parametrize(
    ("table", "value", "low", "high"),
    [
        ((36, 12, 2, 0), 0.20, 0.0569, 0.3404),  # Newcombe 1998, paired data, method 10
        ((1, 1, 7, 12), -0.2857, -0.507, -0.026),  # Bentur et al. 2009, in Fagerland, Lydersen and Laake
    ],
)
def test_paired_difference_of_shares(table, value, low, high):
    interval = paired_difference(*pairs(*table))
    assert interval.value == pytest.approx(value, abs=5e-5)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-4)


def test_paired_difference_turns_with_its_arguments():
    first, second = pairs(10, 12, 3, 25)
    forward, back = paired_difference(first, second), paired_difference(second, first)
    assert (-back.high, -back.low) == pytest.approx((forward.low, forward.high))


def test_paired_difference_covers_the_truth():
    rng = random.Random(5)
    inside = 0
    for _ in range(400):
        shared = [rng.random() < 0.5 for _ in range(60)]
        first = [float(s and rng.random() < 0.6) for s in shared]
        second = [float(s or rng.random() < 0.2) for s in shared]
        interval = paired_difference(first, second)
        inside += interval.low <= 0.6 - 0.3 <= interval.high
    assert 0.92 <= inside / 400 <= 0.99


def test_identical_results_differ_by_nothing():
    interval = paired_difference([1.0] * 8, [1.0] * 8)
    assert interval.value == 0.0
    assert interval.low < 0.0 < interval.high


def test_fractional_rewards_are_compared_by_the_bootstrap():
    rng = random.Random(1)
    first = [rng.random() for _ in range(200)]
    second = [value + 0.1 + 0.02 * rng.gauss(0, 1) for value in first]
    interval = paired_difference(first, second, seed=3)
    assert interval == paired_difference(first, second, seed=3)
    assert interval.low < 0.1 < interval.high
    # The pairing removes the spread of the tasks: 2 * 1.96 * 0.02 / sqrt(200)
    assert interval.high - interval.low == pytest.approx(0.0055, abs=0.001)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    rng = random.Random(2)
    values = [rng.gauss(3.0, 1.0) for _ in range(400)]
    interval = bootstrap_mean(values)
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.12)
    assert bootstrap_mean([2.0] * 5).low == bootstrap_mean([2.0] * 5).high == 2.0


def test_mean_interval_takes_wilson_for_zeros_and_ones():
    assert mean_interval([1.0] * 50 + [0.0] * 50) == wilson(50, 100)
    assert mean_interval([0.5, 0.25, 1.0]) == bootstrap_mean([0.5, 0.25, 1.0])


def test_mcnemar_exact():
    assert mcnemar(*pairs(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)  # Bentur et al. 2009
    assert mcnemar(*pairs(36, 12, 2, 0)) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar(*pairs(5, 0, 0, 5)) == 1.0
    assert mcnemar(*pairs(0, 4, 4, 0)) == 1.0


def test_what_cannot_be_paired_is_refused():
    for function in (paired_difference, mcnemar):
        with pytest.raises(ValueError, match="paired"):
            function([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="paired"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])
