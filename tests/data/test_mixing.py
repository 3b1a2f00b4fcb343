import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.errors import UserError
from arcforge.data.mixing import GeneratedRows, Mixture, StoredRows
from arcforge.data.packing import Tokens, pack


def stored(first: int, count: int, seed: int = 0) -> StoredRows:
    """`count` rows of four tokens; each row is its number, counted from `first`, four times."""
    return StoredRows(pack([Tokens.of([first + i] * 4) for i in range(count)], 4, "truncate"), seed)


def sources() -> dict:
    def make(rng: random.Random) -> Tokens:
        return Tokens.of([rng.randrange(1000, 2000) for _ in range(3)])

    return {"a": stored(0, 7), "b": stored(100, 3), "made": GeneratedRows(make, 4, "test", seed=0)}


WEIGHTS = {"a": 5.0, "b": 3.0, "made": 2.0}


def test_epochs_hold_every_row_once_in_another_order():
    source = stored(0, 7)
    epochs = [[int(source.row(epoch * 7 + i).ids[0, 0]) for i in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [int(source.row(7 + i).ids[0, 0]) for i in range(7)] == epochs[1], "going back gives the same rows"
    assert [int(stored(0, 7, seed=1).row(i).ids[0, 0]) for i in range(7)] != epochs[0]


def test_generated_rows_are_padded_and_repeatable():
    source = sources()["made"]
    assert source.row(5).ids.tolist() == source.row(5).ids.tolist() != source.row(6).ids.tolist()
    assert source.row(5).document_ids.tolist() == [[0, 0, 0, -1]]
    with pytest.raises(ValueError, match="test: row 0 has 5 tokens"):
        GeneratedRows(lambda rng: Tokens.of([1] * 5), 4, "test", seed=0).row(0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), st.integers(1, 60))
def test_shares_are_kept_at_every_moment(weights, count):
    mixture = Mixture(sources(), dict(zip(WEIGHTS, weights)))
    mixture.batch(count)
    taken = mixture.state()
    assert sum(taken.values()) == count
    for name, weight in zip(WEIGHTS, weights):
        assert abs(taken.get(name, 0) - count * weight / sum(weights)) < 2
        assert weight > 0 or name not in taken


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 5))
def test_a_resumed_mixture_continues_where_it_stopped(sizes, stop):
    whole = Mixture(sources(), WEIGHTS)
    batches = [whole.batch(size).ids for size in sizes]
    first = Mixture(sources(), WEIGHTS)
    for size in sizes[:stop]:
        first.batch(size)
    second = Mixture(sources(), WEIGHTS)
    second.restore(json.loads(json.dumps(first.state())))
    for expected, size in zip(batches[stop:], sizes[stop:]):
        assert np.array_equal(second.batch(size).ids, expected)


def test_batch_size_does_not_change_the_rows():
    one, many = Mixture(sources(), WEIGHTS), Mixture(sources(), WEIGHTS)
    assert np.array_equal(np.concatenate([one.batch(1).ids for _ in range(12)]), many.batch(12).ids)


def test_mistakes_are_told():
    with pytest.raises(UserError, match="no source named 'c'"):
        Mixture(sources(), {"c": 1.0})
    with pytest.raises(UserError, match="must be positive"):
        Mixture(sources(), {"a": 0.0})
    with pytest.raises(UserError, match="must not be negative"):
        Mixture(sources(), {"a": 1.0, "b": -1.0})
    with pytest.raises(ValueError, match="state of sources"):
        Mixture(sources(), WEIGHTS).restore({"a": 1})
    with pytest.raises(ValueError, match="one length"):
        Mixture({"a": stored(0, 2), "b": GeneratedRows(lambda rng: Tokens.of([1]), 8, "b", 0)}, {"a": 1, "b": 1})
    with pytest.raises(ValueError, match="at least one row"):
        StoredRows(pack([], 4, "truncate"), 0)
