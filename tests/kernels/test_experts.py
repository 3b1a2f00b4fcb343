"""Routed experts against a loop over tokens, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from arcforge.kernels.experts.naive import routed_experts

D, I = 6, 5


def looped(x, weights, experts, gate_up, down):
    rows = []
    for n in range(len(x)):
        total = torch.zeros_like(x[n])
        for weight, e in zip(weights[n], experts[n].tolist(), strict=True):
            gate, up = gate_up[e, :I] @ x[n], gate_up[e, I:] @ x[n]
            total = total + weight * (down[e] @ (F.silu(gate) * up))
        rows.append(total)
    return torch.stack(rows)


def inputs(N: int, K: int, E: int, used: int):
    """Expert ids below `used`: the others get no token."""
    generator = torch.Generator().manual_seed(N)
    shapes = ((N, D), (N, K), (E, 2 * I, D), (E, D, I))
    x, weights, gate_up, down = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)
    experts = torch.stack([torch.randperm(used, generator=generator)[:K] for _ in range(N)])
    return x, weights, experts, gate_up, down


@pytest.mark.parametrize(
    ("N", "K", "E", "used"), [(1, 1, 1, 1), (1, 3, 8, 8), (37, 2, 5, 5), (20, 2, 6, 3), (9, 4, 4, 4)]
)
def test_values_and_gradients_equal_the_loop(N, K, E, used):
    x, weights, experts, gate_up, down = inputs(N, K, E, used)
    results = []
    for function in (routed_experts, looped):
        leaves = [t.clone().requires_grad_() for t in (x, weights, gate_up, down)]
        out = function(leaves[0], leaves[1], experts, leaves[2], leaves[3])
        out.backward(torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-12)
    idle = results[0][3][used:]
    assert torch.equal(idle, torch.zeros_like(idle)), "an expert without tokens gets no gradient"


def test_tokens_do_not_influence_each_other():
    x, weights, experts, gate_up, down = inputs(12, 2, 5, 5)
    together = routed_experts(x, weights, experts, gate_up, down)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    shuffled = routed_experts(x[order], weights[order], experts[order], gate_up, down)
    assert torch.allclose(shuffled, together[order], atol=1e-12)


def test_the_output_has_the_tokens_dtype_with_float32_weights():
    x, weights, experts, gate_up, down = inputs(4, 2, 3, 3)
    out = routed_experts(x.bfloat16(), weights.float(), experts, gate_up.bfloat16(), down.bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.double(), looped(x, weights, experts, gate_up, down), atol=1.0, rtol=0.1)
