"""The delta rule in chunks against the definition token by token."""

import pytest
import torch
import torch.nn.functional as F

from arcforge.kernels.delta_rule.naive import delta_rule, delta_rule_by_token

H, K, V = 2, 5, 7


def inputs(B: int, T: int, seed: int = 0):
    """float64: queries and unit keys, values, log decays down to e^-3 a token, betas."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(B, T, H, K, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(B, T, H, V, generator=generator, dtype=torch.float64)
    decay = -3 * torch.rand(B, T, H, generator=generator, dtype=torch.float64) ** 4
    beta = torch.rand(B, T, H, generator=generator, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, F.normalize(k, dim=-1).detach(), v, decay, beta)]


def packed(T: int) -> torch.Tensor:
    """Two rows: documents of all lengths, one of them padding; and boundaries where chunks of 8 end."""
    first = [number for number in range(T) for _ in range(number + 1)][:T]
    second = [min(t // 8, 2) for t in range(T)]
    return torch.tensor([first, second])


@pytest.mark.parametrize("T", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("documents", [False, True])
def test_chunks_are_the_recurrence_with_states_and_gradients(T, chunk, documents):
    ours, exact = inputs(2, T), inputs(2, T)
    ids = packed(T) if documents else None
    out, state = delta_rule(*ours, ids, chunk=chunk)
    expected, last = delta_rule_by_token(*exact, ids)
    assert torch.allclose(out, expected, atol=1e-10) and torch.allclose(state, last, atol=1e-10)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    (out * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for mine, theirs in zip(ours, exact, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-8)


def test_a_state_continues_a_document():
    with torch.no_grad():
        everything = [x.detach() for x in inputs(2, 25)]
        whole, last = delta_rule(*everything, chunk=8)
        first, state = delta_rule(*(x[:, :11] for x in everything), chunk=8)
        second, end = delta_rule(*(x[:, 11:] for x in everything), state_BHKV=state, chunk=8)
    assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-10) and torch.allclose(end, last, atol=1e-10)


def test_what_is_written_is_read_and_then_overwritten():
    """b = 1, no decay: the state answers a unit key with the last value written under it."""
    key, other = F.one_hot(torch.tensor([0, 1]), K).double()
    k = torch.stack([key, other, key])[None, :, None]
    v = torch.randn(1, 3, 1, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    nothing, ones = torch.zeros(1, 3, 1, dtype=torch.float64), torch.ones(1, 3, 1, dtype=torch.float64)
    q = torch.stack([key, key, key])[None, :, None]
    out, _ = delta_rule(q, k, v, nothing, ones)
    assert torch.allclose(out[0, :, 0], torch.stack([v[0, 0, 0], v[0, 0, 0], v[0, 2, 0]]))


def test_strong_decay_stays_finite():
    q, k, v, _, beta = inputs(1, 200)
    out, state = delta_rule(q, k, v, torch.full((1, 200, H), -30.0, dtype=torch.float64), beta)
    out.sum().backward()
    assert out.isfinite().all() and state.isfinite().all() and k.grad.isfinite().all()
