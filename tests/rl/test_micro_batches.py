import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.documents import PADDING, SHARED
from arcforge.data.packing import Tokens, pack
from arcforge.data.sharing import pack_shared
from arcforge.rl.micro_batches import micro_batches, separate

LENGTH = 24

documents = st.lists(
    st.builds(
        lambda prompt, answer: Tokens.of([prompt] * 5 + answer, [False] * 5 + [True] * len(answer)),
        st.integers(1, 3),
        st.lists(st.integers(4, 99), max_size=LENGTH - 5),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 100))
def test_portions_hold_every_trained_token_once_within_the_budget(texts, budget):
    rows, _ = pack_shared(texts, LENGTH, 0)
    ids, owners = rows.ids[rows.loss_mask], rows.document_ids[rows.loss_mask]
    seen = np.zeros(len(ids), dtype=int)
    for portion in micro_batches(rows, budget):
        mask = portion.rows.loss_mask
        assert mask.any(1).all() and (portion.rows.document_ids[:, -1] != PADDING).any(), "nothing to learn, or to see"
        assert len(portion.rows) == 1 or portion.rows.ids.size <= budget
        np.testing.assert_array_equal(portion.rows.ids[mask], ids[portion.places])
        np.testing.assert_array_equal(portion.rows.document_ids[mask], owners[portion.places])
        seen[portion.places] += 1
    assert (seen == 1).all()


def test_rows_of_similar_length_go_together_and_padding_is_cut():
    rows = pack([Tokens.of([1] * size) for size in (24, 23, 22, 21, 20)], LENGTH, "best_fit")
    rows.document_ids[1, 4:], rows.loss_mask[1, 4:] = PADDING, False
    rows.document_ids[3, 3:], rows.loss_mask[3, 3:] = PADDING, False
    shapes = [portion.rows.ids.shape for portion in micro_batches(rows, 48)]
    assert shapes == [(2, 24), (2, 20), (1, 3)]
    assert [portion.rows.ids.shape for portion in micro_batches(rows, 10)] == [(1, 24), (1, 22), (1, 20), (2, 4)]


@settings(max_examples=60, deadline=None)
@given(documents)
def test_separated_rows_hold_one_whole_document_each_and_keep_the_order_of_trained_tokens(texts):
    rows, _ = pack_shared(texts, LENGTH, 0)
    apart = separate(rows)
    assert len(apart) == len(texts) and not (apart.document_ids == SHARED).any()
    for ids, owners, positions in zip(apart.ids, apart.document_ids, apart.positions):
        size = int((owners != PADDING).sum())
        (document,) = set(owners[:size].tolist())
        assert ids[:size].tolist() == texts[document].ids.tolist()
        assert positions[:size].tolist() == list(range(size)) and (owners[size:] == PADDING).all()
    for array in ("ids", "document_ids", "positions"):
        np.testing.assert_array_equal(getattr(apart, array)[apart.loss_mask], getattr(rows, array)[rows.loss_mask])
