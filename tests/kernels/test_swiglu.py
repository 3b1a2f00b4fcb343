"""The gated MLP against autograd of its single operations."""

import pytest
import torch
import torch.nn.functional as F

from arcforge.kernels.swiglu.naive import swiglu_mlp


def definition(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (2, 3, 5)])
def test_values_and_gradients_equal_autograd(shape):
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (9, 5), (9, 5), (5, 9))
    tensors = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (swiglu_mlp, definition):
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = function(*leaves)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)


def test_input_stays_as_it_is():
    x, weights = torch.randn(4, 5), [torch.randn(9, 5), torch.randn(9, 5), torch.randn(5, 9)]
    before = x.clone()
    swiglu_mlp(x, *weights)
    assert torch.equal(x, before)
