"""Routed experts as a compiled loop, for few tokens per expert. Legend: N tokens, K experts per token, E experts, D hidden,
I intermediate, P = N K pairs of a token and one of its experts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import carray, compiled, for_team, in_team, thread, threads
from arcforge.kernels.linear.compiled import two_products


def routed_experts(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """`naive.routed_experts` without a gradient, float32."""
    (E, D, I), (N, K) = down_EDI.shape, experts_NK.shape
    out_NKD = torch.empty(N, K, D)
    tensors = (x_ND, weights_NK, experts_NK, gate_up_EID.detach(), down_EDI.detach())
    in_team(_part, N * K, [N, K, E, D, I], *(tensor.contiguous() for tensor in tensors), out_NKD)
    return out_NKD.sum(1)


@compiled
def _mlp(x_ND, weights_P, pairs_X, K, gate_up_ID, down_DI, out_PD):
    """One expert's pairs: rows [X, D] of `out_PD`."""
    rows, (D, I) = len(pairs_X), down_DI.shape
    x_XD, inner_XI = np.empty((rows, D), np.float32), np.empty((rows, I), np.float32)
    left_X, right_X = np.empty(rows, np.float32), np.empty(rows, np.float32)
    for row in range(rows):
        x_XD[row] = x_ND[pairs_X[row] // K]
    for i in range(I):
        two_products(x_XD, gate_up_ID[i], gate_up_ID[I + i], left_X, right_X)
        for row in range(rows):
            inner_XI[row, i] = left_X[row] / (np.float32(1) + np.exp(-left_X[row])) * right_X[row]
    for d in range(0, D, 2):
        other = min(d + 1, D - 1)
        two_products(inner_XI, down_DI[d], down_DI[other], left_X, right_X)
        for row in range(rows):
            p = pairs_X[row]
            out_PD[p, d], out_PD[p, other] = left_X[row] * weights_P[p], right_X[row] * weights_P[p]


@compiled
def _sorted(experts_P, E):
    """Pairs in order of their expert, stably, and the end of each expert's."""
    ends_E, order_P = np.zeros(E, np.int64), np.empty(len(experts_P), np.int64)
    for expert in experts_P:
        ends_E[expert] += 1
    next_E = np.zeros(E, np.int64)
    for e in range(1, E):
        next_E[e] = next_E[e - 1] + ends_E[e - 1]
    for p, expert in enumerate(experts_P):
        order_P[next_E[expert]] = p
        next_E[expert] += 1
    return order_P, next_E


@for_team
def _part(data):
    N, K, E, D, I = carray(data[0], 5, np.int64)
    x_ND, weights_P = carray(data[1], (N, D), np.float32), carray(data[2], N * K, np.float32)
    order_P, ends_E = _sorted(carray(data[3], N * K, np.int64), E)
    gate_up_EID = carray(data[4], (E, 2 * I, D), np.float32)
    down_EDI = carray(data[5], (E, D, I), np.float32)
    out_PD, start = carray(data[6], (N * K, D), np.float32), 0
    for e in range(E):
        # An expert belongs to the thread in whose share of all pairs its middle lies.
        if (start + ends_E[e]) * threads() // (2 * N * K) == thread() and ends_E[e] > start:
            _mlp(x_ND, weights_P, order_P[start : ends_E[e]], K, gate_up_EID[e], down_EDI[e], out_PD)
        start = ends_E[e]
