"""token_logprobs against log_softmax and autograd, at sizes around its chunk of rows."""

import pytest
import torch

from arcforge.kernels.token_logprobs.naive import CHUNK, token_logprobs

D, V = 5, 7
SIZES = (1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 6)


def inputs(rows: int, scale: float = 1.0):
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, D, generator=generator) * scale
    weight = torch.randn(V, D, generator=generator) * scale
    targets = torch.randint(0, V, (rows,), generator=generator)
    return hidden, weight, targets, torch.randn(rows, generator=generator)


def defined(hidden, weight, targets):
    return (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


@pytest.mark.parametrize("rows", SIZES)
def test_values_and_gradients_are_those_of_log_softmax(rows):
    hidden, weight, targets, upstream = inputs(rows)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    values, expected = token_logprobs(*ours, targets), defined(*exact, targets)
    assert values.dtype == torch.float32 and values.shape == (rows,)
    assert torch.allclose(values.double(), expected, atol=1e-5)
    values.backward(upstream)
    expected.backward(upstream.double())
    for mine, other in zip(ours, exact, strict=True):
        assert torch.allclose(mine.grad.double(), other.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trained", [0, 1])
def test_one_side_may_be_frozen(trained):
    hidden, weight, targets, _ = inputs(CHUNK + 1)
    ours, exact = [hidden, weight], [hidden.double(), weight.double()]
    ours[trained], exact[trained] = ours[trained].requires_grad_(), exact[trained].requires_grad_()
    token_logprobs(*ours, targets).mean().backward()
    defined(*exact, targets).mean().backward()
    assert torch.allclose(ours[trained].grad.double(), exact[trained].grad, atol=1e-6)
    assert ours[1 - trained].grad is None


def test_without_gradients_the_values_are_the_same():
    hidden, weight, targets, _ = inputs(CHUNK + 1)
    recorded = token_logprobs(hidden.requires_grad_(), weight, targets)
    with torch.no_grad():
        assert torch.equal(token_logprobs(hidden, weight, targets), recorded)


def test_logits_in_the_thousands_stay_finite():
    hidden, weight, targets, _ = inputs(40, scale=40.0)
    assert (hidden @ weight.T).abs().max() > 1000
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    values = token_logprobs(hidden, weight, targets)
    assert torch.allclose(values.double(), defined(hidden.double(), weight.double(), targets), rtol=1e-5, atol=1e-3)
    values.sum().backward()
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all()


def test_no_rows_give_no_values():
    hidden, weight = torch.zeros(0, D, requires_grad=True), torch.ones(V, D, requires_grad=True)
    values = token_logprobs(hidden, weight, torch.zeros(0, dtype=torch.long))
    assert values.shape == (0,) and values.dtype == torch.float32
    values.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(V, D))


def test_bfloat16_inputs_give_float32_values_and_bfloat16_gradients():
    hidden, weight, targets, _ = inputs(30)
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.bfloat16().requires_grad_()
    values = token_logprobs(hidden, weight, targets)
    values.sum().backward()
    assert values.dtype == torch.float32 and hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    assert torch.allclose(values, defined(hidden.float(), weight.float(), targets), atol=0.1)
