"""The gated MLP, keeping its input and its two inner projections alone. Legend: N rows, D hidden, I intermediate.

The maths is in README.md beside this file.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu_mlp(x: Tensor, gate_ID: Tensor, up_ID: Tensor, down_DI: Tensor) -> Tensor:
    """down(silu(gate x) * up x), [..., D]."""
    return _SwiGLU.apply(x.flatten(0, -2), gate_ID, up_ID, down_DI).view(x.shape)  # type: ignore[union-attr]


def swiglu_backward(upstream: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up where their silu(gate) * up got `upstream`."""
    return torch.ops.aten.silu_backward(upstream * up, gate), F.silu(gate).mul_(upstream)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, gate_ID: Tensor, up_ID: Tensor, down_DI: Tensor) -> Tensor:
        gate_NI, up_NI = x_ND @ gate_ID.T, x_ND @ up_ID.T
        ctx.save_for_backward(x_ND, gate_ID, up_ID, down_DI, gate_NI, up_NI)
        return F.silu(gate_NI).mul_(up_NI) @ down_DI.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x_ND, gate_ID, up_ID, down_DI, gate_NI, up_NI = ctx.saved_tensors
        upstream_ND = grads[0]
        ddown_DI = upstream_ND.T @ F.silu(gate_NI).mul_(up_NI)
        dgate_NI, dup_NI = swiglu_backward(upstream_ND @ down_DI, gate_NI, up_NI)
        dx_ND = (dgate_NI @ gate_ID).addmm_(dup_NI, up_ID)
        return dx_ND, dgate_NI.T @ x_ND, dup_NI.T @ x_ND, ddown_DI
