"""The two forms of latent attention, and the indexer's target, against their definition in float64."""

import pytest
import torch

from arcforge.kernels.attention import masked
from arcforge.kernels.attention.masked import PIECE, masked_mha
from arcforge.kernels.attention.naive import QUERY_CHUNK, as_bias, attention_distribution, mha, mqa_absorbed

B, H, R, N, P, V = 2, 3, 8, 6, 4, 5
SCALE = (N + P) ** -0.5


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def probabilities(q, k, mask):
    scores = torch.einsum("bhtk,bhsk->bhts", q, k) * SCALE
    return scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)


def visible(T: int, S: int, seed: int = 5) -> torch.Tensor:
    """A random causal mask in which every query sees its own place."""
    causal = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    own = torch.eye(S, dtype=torch.bool)[S - T :]
    return (torch.rand(B, T, S, generator=torch.Generator().manual_seed(seed)) < 0.6) & causal | own


def test_mha_is_softmax_attention_with_gradients():
    mask = visible(11, 11)
    ours = [random(B, H, 11, N + P, seed=i).requires_grad_() for i in range(2)] + [random(B, H, 11, V).requires_grad_()]
    exact = [x.detach().clone().requires_grad_() for x in ours]
    upstream = random(B, H, 11, V, seed=9)
    mha(*ours, mask, SCALE).backward(upstream)
    out = torch.einsum("bhts,bhsv->bhtv", probabilities(exact[0], exact[1], mask), exact[2])
    out.backward(upstream)
    assert torch.allclose(mha(*ours, mask, SCALE), out, atol=1e-10)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-10) for a, b in zip(ours, exact, strict=True))


def test_no_mask_means_causal():
    q, k, v = random(B, H, 7, N + P, seed=1), random(B, H, 7, N + P, seed=2), random(B, H, 7, V, seed=3)
    causal = torch.ones(7, 7, dtype=torch.bool).tril().expand(B, -1, -1)
    assert torch.allclose(mha(q, k, v, None, SCALE), mha(q, k, v, causal, SCALE), atol=1e-10)


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 13), (4, 13), (13, 13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_absorbed_form_is_the_mha_form(T, S, dtype):
    """W_UK goes into the query, W_UV behind the attended latents; nothing else changes."""
    w_uk, w_uv = random(H, N, R, seed=1, dtype=dtype), random(H, V, R, seed=2, dtype=dtype)
    latent, k_rope = random(B, S, R, seed=3, dtype=dtype), random(B, S, P, seed=4, dtype=dtype)
    q_nope, q_rope = random(B, T, H, N, seed=5, dtype=dtype), random(B, T, H, P, seed=6, dtype=dtype)
    mask = visible(T, S)
    q = torch.cat((q_nope, q_rope), -1).transpose(1, 2)
    k_nope = torch.einsum("bsr,hnr->bhsn", latent, w_uk)
    k = torch.cat((k_nope, k_rope[:, None].expand(-1, H, -1, -1)), -1)
    expected = mha(q, k, torch.einsum("bsr,hvr->bhsv", latent, w_uv), mask, SCALE)
    absorbed = torch.cat((torch.einsum("bthn,hnr->bthr", q_nope, w_uk), q_rope), -1)
    attended = mqa_absorbed(absorbed, torch.cat((latent, k_rope), -1), R, as_bias(mask), SCALE)
    assert attended.shape == (B, T, H, R) and attended.dtype == dtype
    assert torch.allclose(torch.einsum("bthr,hvr->bhtv", attended, w_uv), expected, atol=1e-5)


@pytest.mark.parametrize("T", [1, QUERY_CHUNK - 1, QUERY_CHUNK, QUERY_CHUNK + 1, 2 * QUERY_CHUNK + 3])
def test_the_indexers_target_is_the_mean_over_heads(T):
    q, k = random(B, H, T, N + P, seed=1), random(B, H, T, N + P, seed=2)
    mask = visible(T, T)
    target = attention_distribution(q.float().requires_grad_(), k.float(), mask, SCALE)
    assert target.dtype == torch.float32 and not target.requires_grad
    assert torch.allclose(target.double(), probabilities(q, k, mask).mean(1), atol=1e-6)
    assert torch.allclose(target.sum(-1), torch.ones(B, T), atol=1e-5)
    assert torch.equal(target[~mask], torch.zeros_like(target[~mask]))


@pytest.mark.parametrize("ranges", [(1,), (5, 64, 70, 3), (PIECE, PIECE), (2 * PIECE + 1,)])
@pytest.mark.parametrize("wide", [False, True], ids=["narrow masks", "masks of all keys"])
@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("most", [64 << 20, 4 * 6 * 70])
def test_masked_attention_in_pieces_is_mha(ranges, wide, first, most, monkeypatch):
    """Values and gradients in float64, over random causal masks of ranges that end at awkward places; the later ranges see
    nothing before key 3 where that is said; pieces as small as the bytes allow."""
    monkeypatch.setattr(masked, "PIECE_BYTES", most)
    generator = torch.Generator().manual_seed(sum(ranges))
    T = sum(ranges)
    tensors = [torch.randn(2, 3, T, width, generator=generator, dtype=torch.float64) for width in (6, 6, 4)]
    mask = torch.rand(2, T, T, generator=generator) < 0.3
    mask = (mask | torch.eye(T, dtype=torch.bool)) & torch.ones(T, T, dtype=torch.bool).tril()
    ends = torch.tensor(ranges).cumsum(0).tolist()
    mask[:, ends[0] :, :first] = False
    parts = [(first * (a > 0), mask[:, a:b, first * (a > 0) : T if wide else b]) for a, b in zip([0, *ends], ends)]
    upstream = torch.randn(2, 3, T, 4, generator=generator, dtype=torch.float64)
    results = []
    for function in (lambda q, k, v: masked_mha(q, k, v, parts, SCALE), lambda q, k, v: mha(q, k, v, mask, SCALE)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = function(*leaves)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-10)


def test_masked_attention_in_bfloat16_is_near_float32():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 2, 40, 8, generator=generator) for _ in range(3)]
    mask = torch.ones(1, 40, 40, dtype=torch.bool).tril()
    outs = [
        masked_mha(*(t.to(dtype) for t in tensors), [(0, mask)], SCALE) for dtype in (torch.bfloat16, torch.float32)
    ]
    assert outs[0].dtype == torch.bfloat16 and torch.allclose(outs[0].float(), outs[1], atol=0.05)
