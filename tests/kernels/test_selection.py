"""The indexer's scores against a plain loop, top-k selection against sorting, ties included."""

import itertools

import pytest
import torch

from arcforge.kernels.selection.naive import MOST_QUERIES, index_scores, select_topk, selected_positions


def sorted_choice(scores, allowed, topk: int):
    """The definition: allowed keys by falling score, equal scores by rising index, the first `topk`."""
    chosen = torch.zeros_like(allowed)
    B, T, S = scores.shape
    for b, t in itertools.product(range(B), range(T)):
        keys = sorted((s for s in range(S) if allowed[b, t, s]), key=lambda s: (-float(scores[b, t, s]), s))
        chosen[b, t, keys[:topk]] = True
    return chosen


@pytest.mark.parametrize("levels", [1, 2, 5, 10_000])
@pytest.mark.parametrize("keys", [1, 6, 33, 70])
@pytest.mark.parametrize("topk", [1, 2, 4, 32, 33, 40])
def test_selection_is_the_sorted_choice(levels, keys, topk):
    """From all scores equal (levels 1) to none."""
    generator = torch.Generator().manual_seed(levels + keys)
    scores = torch.randint(0, levels, (2, 9, keys), generator=generator).float() / 8 - 0.5
    allowed = torch.rand(2, 9, keys, generator=generator) < 0.7
    allowed[0, 0] = False
    allowed[1, 1] = True
    before = scores.clone()
    assert torch.equal(select_topk(scores, allowed, topk), sorted_choice(scores, allowed, topk))
    assert torch.equal(scores, before), "the caller's scores are not touched"


def test_ties_go_to_the_lowest_allowed_index():
    scores = torch.tensor([[[1.0, 0.0, 1.0, 2.0, 1.0, -0.0]]])
    allowed = torch.tensor([[[False, True, True, True, True, True]]])
    chosen = select_topk(scores, allowed, 2)[0, 0].nonzero().flatten()
    assert chosen.tolist() == [2, 3]
    assert select_topk(scores, allowed, 4)[0, 0].nonzero().flatten().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("allowed_keys", [0, 1, 3])
def test_queries_with_at_most_k_allowed_keys_keep_them_all(allowed_keys):
    scores = torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(1))
    allowed = torch.zeros(1, 4, 10, dtype=torch.bool)
    allowed[..., 5 : 5 + allowed_keys] = True
    assert torch.equal(select_topk(scores, allowed, 3), allowed)


@pytest.mark.parametrize("levels", [1, 3, 10_000])
@pytest.mark.parametrize(("keys", "topk"), [(21, 1), (21, 4), (21, 20), (21, 21), (83, 1), (83, 4), (83, 5)])
def test_positions_for_decoding_are_the_same_choice(levels, keys, topk):
    """Keys that no group's end falls together with, from none allowed to all of them."""
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (40, keys), generator=generator).float()
    allowed = torch.rand(40, keys, generator=generator) < torch.linspace(0, 1, 40)[:, None]
    positions, real = selected_positions(scores, allowed, topk)
    assert positions.shape == real.shape == (40, topk)
    assert int(positions.min()) >= 0 and int(positions.max()) < keys, "also where nothing real stands"
    expected = sorted_choice(scores[None], allowed[None], topk)[0]
    for row, chosen, flags in zip(expected, positions, real, strict=True):
        assert sorted(chosen[flags].tolist()) == row.nonzero().flatten().tolist()


def test_the_selection_of_a_row_does_not_depend_on_its_neighbours():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(0, 3, (1, 40, 50), generator=generator).float()
    allowed = torch.ones(40, 50, dtype=torch.bool).tril()[None]
    together = select_topk(scores, allowed, 8)
    alone = torch.cat([select_topk(scores[:, t : t + 1], allowed[:, t : t + 1], 8) for t in range(40)], 1)
    assert torch.equal(together, alone)


def looped_scores(q, k, w):
    B, T, J, D = q.shape
    rows = []
    for b, t in itertools.product(range(B), range(T)):
        rows.append(sum(w[b, t, j] * torch.relu(k[b] @ q[b, t, j] * D**-0.5) for j in range(J)))
    return torch.stack(rows).view(B, T, -1)


def index_inputs(T: int, S: int):
    generator = torch.Generator().manual_seed(T + S)
    shapes = ((2, T, 3, 4), (2, S, 4), (2, T, 3))
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("T", [1, MOST_QUERIES - 1, MOST_QUERIES, MOST_QUERIES + 1, 2 * MOST_QUERIES + 2])
def test_index_scores_are_the_loop_at_all_keys_that_a_causal_query_sees(T):
    ours = [x.clone().requires_grad_() for x in index_inputs(T, T)]
    exact = [x.double().requires_grad_() for x in index_inputs(T, T)]
    scores, expected = index_scores(*ours, first=0), looped_scores(*exact)
    assert scores.shape == (2, T, T) and scores.dtype == torch.float32
    visible = torch.ones(T, T).tril()
    assert torch.allclose(scores * visible, (expected * visible).float(), atol=1e-5)
    upstream = torch.randn(2, T, T, generator=torch.Generator().manual_seed(3)) * visible
    scores.backward(upstream)
    expected.backward(upstream.double())
    for mine, other in zip(ours, exact, strict=True):
        assert torch.allclose(mine.grad.double(), other.grad, atol=1e-4)


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 70), (64, 65), (50, 140)])
def test_a_chunk_of_causal_queries_has_the_scores_that_it_has_among_all(start, end):
    q, k, w = index_inputs(140, 140)
    part = index_scores(q[:, start:end], k[:, :end], w[:, start:end], first=start)
    whole = index_scores(q, k, w)[:, start:end, :end]
    seen = torch.ones(end - start, end, dtype=torch.bool).tril(start)
    assert torch.allclose(part[:, seen], whole[:, seen], atol=1e-6)


@pytest.mark.parametrize(("T", "S"), [(1, 30), (5, 200), (MOST_QUERIES + 6, MOST_QUERIES + 6)])
def test_index_scores_of_cached_keys_are_the_loop_at_every_key(T, S):
    q, k, w = index_inputs(T, S)
    expected = looped_scores(q.double(), k.double(), w.double()).float()
    assert torch.allclose(index_scores(q, k, w), expected, atol=1e-5)


def test_scores_in_bfloat16_are_added_up_in_float32():
    q, k, w = (x.bfloat16() for x in index_inputs(6, 20))
    expected = looped_scores(q.double(), k.double(), w.double()).float()
    assert torch.allclose(index_scores(q, k, w), expected, atol=1e-5)
