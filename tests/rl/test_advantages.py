import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcforge.rl.advantages import agentic, grpo, repair

rewards = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)


@given(rewards)
def test_failures_change_no_baseline_and_get_no_advantage(values):
    valid = [r for r in values if r is not None]
    for function in (grpo, agentic):
        found = function(values)
        assert [a is None for a in found] == [r is None for r in values]
        assert [a for a in found if a is not None] == function(valid)
        assert math.isclose(sum(a for a in found if a is not None), 0, abs_tol=1e-6)


def test_values():
    assert agentic([1.0, 0.0, None, 0.0, 1.0]) == [0.5, -0.5, None, -0.5, 0.5]
    spread = statistics.pstdev([1, 0, 0])
    assert grpo([1.0, 0.0, 0.0]) == pytest.approx([(2 / 3) / spread, (-1 / 3) / spread, (-1 / 3) / spread])


def test_equal_rewards_teach_exactly_nothing():
    assert grpo([0.1] * 7) == [0.0] * 7
    assert agentic([0.1] * 7) == [0.0] * 7
    assert grpo([]) == [] and grpo([None]) == [None]


def test_repair_pads_a_group_that_is_more_than_half_valid_and_drops_the_rest():
    assert repair(["a", "b", "c"], 5) == ["a", "b", "c", "a", "b"]
    assert repair(["a", "b"], 4) is None
    assert repair(["a", "b"], 2) == ["a", "b"]
    assert repair([], 0) is None


@given(st.lists(st.integers(), unique=True, max_size=9), st.integers(0, 9))
def test_a_repaired_group_is_full_and_repeats_every_valid_member_alike(valid, size):
    valid = valid[:size]
    found = repair(valid, size)
    assert (found is None) == (len(valid) <= size / 2)
    if found is not None:
        copies = [found.count(member) for member in valid]
        assert len(found) == size == sum(copies) and max(copies) - min(copies) <= 1
