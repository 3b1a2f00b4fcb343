"""Routed experts on a sorted token list. Legend: N tokens, K experts per token, E experts, D hidden, I intermediate, P = N K pairs of
a token and one of its experts, sorted by expert.

The maths is in README.md beside this file.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from arcforge.kernels.row_tiles.naive import in_tiles
from arcforge.kernels.swiglu.naive import swiglu_backward


def routed_experts(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """sum_k w[n, k] * down_e(silu(gate_e x) * up_e x), [N, D]; gate_up holds gate rows first, then up rows (2I rows).

    The weight is applied after the down projection (GLM-5 checkpoints' order of operations).
    """
    return _RoutedExperts.apply(x_ND, weights_NK, experts_NK, gate_up_EID, down_EDI)  # type: ignore[return-value]


def routed_experts_alone(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """The same for inference; bit for bit the same for a token however many others chose its experts."""
    order_P, rows_of = _sorted(experts_NK, gate_up_EID.shape[0])
    x_PD = x_ND[order_P // experts_NK.shape[1]]
    out_PD = torch.empty_like(x_PD)
    for expert, rows in enumerate(rows_of):
        if rows.stop > rows.start:

            def mlp(
                tile: Tensor, gate_up_ID: Tensor = gate_up_EID[expert], down_DI: Tensor = down_EDI[expert]
            ) -> Tensor:
                gate, up = (tile @ gate_up_ID.T).chunk(2, -1)
                return (F.silu(gate.contiguous()) * up) @ down_DI.T

            out_PD[rows] = in_tiles(x_PD[rows], mlp)
    out_PD *= weights_NK.flatten()[order_P].unsqueeze(-1).to(x_ND.dtype)
    return _summed(out_PD, order_P, experts_NK.shape)


class _RoutedExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
    ) -> Tensor:
        order_P, rows_of = _sorted(experts_NK, gate_up_EID.shape[0])
        x_PD = x_ND[order_P // experts_NK.shape[1]]
        gate_up_PI = _each(x_PD, gate_up_EID.transpose(1, 2), rows_of)
        gate_PI, up_PI = gate_up_PI.chunk(2, -1)
        out_PD = _each(F.silu(gate_PI).mul_(up_PI), down_EDI.transpose(1, 2), rows_of)
        out_PD.mul_(weights_NK.flatten()[order_P].unsqueeze(-1).to(x_ND.dtype))
        ctx.save_for_backward(x_ND, weights_NK, order_P, gate_up_EID, down_EDI, gate_up_PI)
        ctx.rows_of = rows_of
        return _summed(out_PD, order_P, experts_NK.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weights_NK, order_P, gate_up_EID, down_EDI, gate_up_PI = ctx.saved_tensors
        token_P, weights_P1 = order_P // weights_NK.shape[1], weights_NK.flatten()[order_P].unsqueeze(-1)
        gate_PI, up_PI = gate_up_PI.chunk(2, -1)
        inner_PI = F.silu(gate_PI).mul_(up_PI)
        upstream_PD = grads[0][token_P]
        dinner_PI = _each(upstream_PD, down_EDI, ctx.rows_of)
        dweights_P = (inner_PI * dinner_PI).sum(-1).to(weights_NK.dtype)
        weights_P1 = weights_P1.to(x_ND.dtype)
        ddown_EDI = _outer(upstream_PD.mul_(weights_P1), inner_PI, down_EDI, ctx.rows_of)
        dgate_up_PI = torch.cat(swiglu_backward(dinner_PI.mul_(weights_P1), gate_PI, up_PI), -1)
        del upstream_PD, inner_PI, dinner_PI  # large, and this is where a training step's memory peaks
        dgate_up_EID = _outer(dgate_up_PI, x_ND[token_P], gate_up_EID, ctx.rows_of)
        dx_ND = _summed(_each(dgate_up_PI, gate_up_EID, ctx.rows_of), order_P, weights_NK.shape)
        dweights_NK = torch.empty_like(weights_NK).flatten().index_copy_(0, order_P, dweights_P).view_as(weights_NK)
        return dx_ND, dweights_NK, None, dgate_up_EID, ddown_EDI


def _sorted(experts_NK: Tensor, count: int) -> tuple[Tensor, list[slice]]:
    """Pairs in order of their expert, stably, and each expert's range of them."""
    chosen_P = experts_NK.flatten()
    ends = torch.bincount(chosen_P, minlength=count).cumsum(0).tolist()
    return chosen_P.argsort(stable=True), [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def _each(rows_PX: Tensor, matrices_EXY: Tensor, rows_of: list[slice]) -> Tensor:
    """Every row times its expert's matrix, [P, Y]."""
    out_PY = rows_PX.new_empty(len(rows_PX), matrices_EXY.shape[-1])
    for expert, rows in enumerate(rows_of):
        if rows.stop > rows.start:
            torch.mm(rows_PX[rows], matrices_EXY[expert], out=out_PY[rows])
    return out_PY


def _outer(left_PX: Tensor, right_PY: Tensor, like_EXY: Tensor, rows_of: list[slice]) -> Tensor:
    """Per expert, the sum of its rows' outer products: a gradient of the experts' matrices; 0 without rows."""
    out_EXY = torch.empty_like(like_EXY)
    for out_XY, rows in zip(out_EXY.unbind(), rows_of, strict=True):
        torch.mm(left_PX[rows].T, right_PY[rows], out=out_XY)
    return out_EXY


def _summed(rows_PD: Tensor, order_P: Tensor, shape: torch.Size) -> Tensor:
    """Every token's pairs added up, [N, D]: gathered by token, in the order of its choices, so that no two threads add to
    the same row."""
    place_P = torch.empty_like(order_P)
    place_P[order_P] = torch.arange(len(order_P), device=order_P.device)
    return rows_PD[place_P].view(*shape, -1).sum(1)
