"""The norm against its definition, values and gradients in float64, and its order of casts in bfloat16."""

import pytest
import torch

from arcforge.kernels.rms_norm.naive import rms_norm

EPS = 1e-3


def definition(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (2, 3, 16), (2, 3, 4, 9)])
def test_values_and_gradients(shape):
    generator = torch.Generator().manual_seed(len(shape))
    x, upstream = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(shape[-1], generator=generator, dtype=torch.float64)
    x[(0,) * (len(shape) - 1)] = 0.0  # a row of zeros
    results = []
    for function in (lambda a, b: rms_norm(a, b, EPS), definition):
        leaves = [t.clone().requires_grad_() for t in (x, weight)]
        out = function(*leaves)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)


def test_a_view_that_is_not_contiguous_has_the_gradient_of_its_copy():
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    grads = []
    for take in (lambda t: t[:, :4], lambda t: t[:, :4].contiguous()):
        leaf = base.clone().requires_grad_()
        rms_norm(take(leaf), torch.ones(4), EPS).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


def test_the_weight_multiplies_after_the_cast():
    x, weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.full((32,), 1.7)
    normed = (x.float() * (x.float().square().mean(-1, keepdim=True) + EPS).rsqrt()).bfloat16()
    assert torch.equal(rms_norm(x, weight.bfloat16(), EPS), normed * weight.bfloat16())
