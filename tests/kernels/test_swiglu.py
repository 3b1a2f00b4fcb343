"""The gate against autograd of its two operations."""

import torch
import torch.nn.functional as F

from arcforge.kernels.swiglu.naive import swiglu


def test_values_and_gradients_equal_autograd():
    generator = torch.Generator().manual_seed(0)
    gate, up, upstream = (torch.randn(5, 7, generator=generator, dtype=torch.float64) * 4 for _ in range(3))
    results = []
    for function in (swiglu, lambda a, b: F.silu(a) * b):
        leaves = [t.clone().requires_grad_() for t in (gate, up)]
        out = function(*leaves)
        out.backward(upstream)
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)


def test_inputs_stay_as_they_are():
    gate, up = torch.randn(4, 3), torch.randn(4, 3)
    before = gate.clone(), up.clone()
    swiglu(gate, up)
    assert torch.equal(gate, before[0]) and torch.equal(up, before[1])
