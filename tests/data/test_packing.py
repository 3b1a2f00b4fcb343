import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.documents import PADDING
from arcforge.data.packing import PackedRows, Tokens, pack

sizes = st.lists(st.integers(0, 40), max_size=30)
lengths = st.integers(2, 33)
strategies = st.sampled_from(["truncate", "best_fit"])


def numbered(lengths_of_documents: list[int]) -> list[Tokens]:
    """Documents whose ids count through all of them, starting at 1, with a mask that is true on even ids."""
    documents, start = [], 1
    for size in lengths_of_documents:
        ids = np.arange(start, start + size)
        documents.append(Tokens.of(ids, ids % 2 == 0))
        start += size
    return documents


@settings(max_examples=300, deadline=None)
@given(sizes, lengths, strategies)
def test_no_token_lost_or_duplicated(sizes, length, strategy):
    rows = pack(numbered(sizes), length, strategy, pad_id=7)
    real = rows.document_ids != PADDING
    assert sorted(rows.ids[real]) == list(range(1, sum(sizes) + 1))
    assert (rows.ids[~real] == 7).all()
    assert not rows.loss_mask[~real].any()
    assert rows.ids.shape == rows.document_ids.shape == rows.loss_mask.shape
    assert rows.ids.dtype == rows.document_ids.dtype == np.int32 and rows.loss_mask.dtype == bool


@settings(max_examples=300, deadline=None)
@given(sizes, lengths, strategies)
def test_document_ids_are_contiguous_and_true(sizes, length, strategy):
    rows = pack(numbered(sizes), length, strategy)
    ends = np.cumsum(sizes)
    for ids, document_ids, mask in zip(rows.ids, rows.document_ids, rows.loss_mask, strict=True):
        real = document_ids != PADDING
        assert not np.any(~real[:-1] & real[1:]), "padding stands at the end of a row"
        assert real.any(), "no row is empty"
        changes = [d for d, before in zip(document_ids, [None, *document_ids]) if d != before and d != PADDING]
        assert len(changes) == len(set(changes)), "a document is one run in a row"
        for t in np.flatnonzero(real):
            assert document_ids[t] == np.searchsorted(ends, ids[t]), "each token carries the number of its document"
            first = t == 0 or document_ids[t - 1] != document_ids[t]
            assert first or ids[t] == ids[t - 1] + 1, "tokens stay in order"
            assert mask[t] == (ids[t] % 2 == 0 and not first)


@settings(max_examples=200, deadline=None)
@given(sizes, lengths)
def test_truncate_pads_only_the_last_row(sizes, length):
    rows = pack(numbered(sizes), length, "truncate")
    assert len(rows) == -(-sum(sizes) // length)
    assert (rows.document_ids[:-1] != PADDING).all()
    real = rows.document_ids != PADDING
    assert list(rows.ids[real]) == list(range(1, sum(sizes) + 1))


@settings(max_examples=200, deadline=None)
@given(sizes, lengths)
def test_best_fit_splits_only_what_is_longer_than_a_row(sizes, length):
    rows = pack(numbered(sizes), length, "best_fit")
    pieces = [len(set(np.argwhere(rows.document_ids == d)[:, 0])) for d in range(len(sizes))]
    assert pieces == [-(-size // length) for size in sizes]
    used = (rows.document_ids != PADDING).sum(axis=1)
    # Two rows that fit together would mean that the second was opened without need.
    assert all(used[a] + used[b] > length for a in range(len(used)) for b in range(a))


def test_best_fit_chooses_the_tightest_row():
    rows = pack(numbered([6, 5, 4, 3, 2]), 10, "best_fit")
    assert len(rows) == 2
    assert {tuple(sorted(set(row))) for row in rows.document_ids.tolist()} == {(0, 2), (1, 3, 4)}


def test_offsets_count_from_the_start_of_the_document_in_the_row():
    rows = pack(numbered([3, 4]), 5, "truncate")
    assert rows.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]]


def test_concatenate_and_index():
    rows = pack(numbered([5, 5, 5]), 5, "truncate")
    again = PackedRows.concatenate([rows[1:], rows[[0]]])
    assert again.ids.tolist() == [*rows.ids[1:].tolist(), rows.ids[0].tolist()]
    assert len(again) == 3 and again.length == 5 and again.padding_share == 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="3 ids and 2 mask"):
        Tokens.of([1, 2, 3], [True, False])
    with pytest.raises(ValueError, match="unknown packing strategy"):
        pack([], 4, "worst_fit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="predict nothing"):
        pack([], 1, "truncate")
