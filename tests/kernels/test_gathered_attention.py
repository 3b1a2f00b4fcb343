"""Attention over gathered keys against the masked form, with gradients, at awkward sizes."""

import pytest
import torch

from arcforge.kernels.attention import gathered
from arcforge.kernels.attention.gathered import gathered_distribution, gathered_index_scores, gathered_mqa
from arcforge.kernels.attention.naive import as_bias, mqa_absorbed
from arcforge.kernels.selection.naive import index_scores, select_topk, selected_positions

H, R, P, J, D = 3, 8, 4, 5, 6
SCALE = (R + P) ** -0.5


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def chosen(B: int, T: int, K: int, seed: int = 3):
    """Mask and positions of the same choice: causal, of ties too, and of documents whose starts see few keys."""
    scores = random(B, T, T, seed=seed, dtype=torch.float32).relu()
    documents = torch.arange(T) // 7
    allowed = (torch.ones(T, T, dtype=torch.bool).tril() & (documents[:, None] == documents)).expand(B, -1, -1)
    return select_topk(scores, allowed, K), *selected_positions(scores, allowed, K)


@pytest.fixture(params=[1, 10**6], ids=["one query a piece", "one piece"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(gathered, "GATHERED_BYTES", request.param)


@pytest.mark.parametrize(("B", "T", "K"), [(1, 1, 1), (2, 13, 4), (1, 30, 30), (3, 17, 1)])
def test_values_and_gradients_are_those_of_the_masked_form(pieces, B, T, K):
    mask, positions, real = chosen(B, T, K)
    ours = [random(B, T, H, R + P, seed=1).requires_grad_(), random(B, T, R + P, seed=2).requires_grad_()]
    exact = [x.detach().clone().requires_grad_() for x in ours]
    upstream = random(B, T, H, R, seed=9)
    positions = torch.where(real, positions, T - 1)  # what is not chosen may point anywhere
    out = gathered_mqa(*ours, positions, real, R, SCALE)
    out.backward(upstream)
    expected = mqa_absorbed(*exact, R, as_bias(mask), SCALE)
    expected.backward(upstream)
    assert torch.allclose(out, expected, atol=1e-6)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-5) for a, b in zip(ours, exact, strict=True))


def test_keys_that_are_not_chosen_do_not_matter_even_when_they_are_not_numbers():
    _, positions, real = chosen(1, 20, 3)
    q, keys = random(1, 20, H, R + P, seed=1), random(1, 20, R + P, seed=2)
    used = positions[real].unique()
    broken = keys.clone()
    broken[:, [s for s in range(20) if s not in used]] = float("nan")
    positions = torch.where(real, positions, positions[..., :1])
    assert torch.equal(
        gathered_mqa(q, broken, positions, real, R, SCALE), gathered_mqa(q, keys, positions, real, R, SCALE)
    )


def test_the_target_is_the_mean_over_heads_at_the_chosen_keys(pieces):
    mask, positions, real = chosen(2, 19, 4)
    q, keys = random(2, 19, H, R + P, seed=1), random(2, 19, R + P, seed=2)
    scores = torch.einsum("bthc,bsc->bhts", q, keys) * SCALE
    full = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1).mean(1)
    target = gathered_distribution(q, keys, positions, real, SCALE)
    assert torch.allclose(target[real].double(), full.gather(2, positions)[real], atol=1e-6)
    assert torch.allclose(target.sum(-1), torch.ones(2, 19)) and target[~real].abs().max() == 0


def test_index_scores_of_chosen_keys_are_those_of_all_keys_with_their_gradients():
    _, positions, _ = chosen(2, 19, 4)
    ours = [
        x.requires_grad_() for x in (random(2, 19, J, D, seed=1), random(2, 19, D, seed=2), random(2, 19, J, seed=3))
    ]
    exact = [x.detach().clone().requires_grad_() for x in ours]
    upstream = random(2, 19, 4, seed=4, dtype=torch.float32)
    found = gathered_index_scores(*ours, positions)
    found.backward(upstream)
    expected = index_scores(*exact).gather(2, positions)
    expected.backward(upstream)
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-5) for a, b in zip(ours, exact, strict=True))
