"""Routed experts as a compiled loop, for few tokens per expert. Legend: N tokens, K experts per token, E experts, D hidden,
I intermediate, P = N K pairs of a token and one of its experts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import compiled


def routed_experts(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """`naive.routed_experts` without a gradient, float32."""
    out_ND = torch.zeros(x_ND.shape)
    _experts(
        x_ND.numpy(),
        weights_NK.numpy(),
        experts_NK.numpy(),
        gate_up_EID.detach().numpy(),
        down_EDI.detach().numpy(),
        out_ND.numpy(),
    )
    return out_ND


@compiled
def _experts(x_ND, weights_NK, experts_NK, gate_up_EID, down_EDI, out_ND):
    (E, D, I), K = down_EDI.shape, experts_NK.shape[1]
    order_P, ends_E = _sorted(experts_NK, E)
    most, start = 0, 0
    for end in ends_E:
        most, start = max(most, end - start), end
    x_PD, inner_PI = np.empty((most, D), np.float32), np.empty((most, I), np.float32)
    left_P, right_P = np.empty(most, np.float32), np.empty(most, np.float32)
    start = 0
    for e in range(E):
        pairs_P = order_P[start : ends_E[e]]
        start, rows = ends_E[e], len(pairs_P)
        if not rows:
            continue
        for row in range(rows):
            x_PD[row] = x_ND[pairs_P[row] // K]
        for i in range(I):
            _two_products(x_PD, rows, gate_up_EID[e, i], gate_up_EID[e, I + i], left_P, right_P)
            for row in range(rows):
                inner_PI[row, i] = left_P[row] / (np.float32(1) + np.exp(-left_P[row])) * right_P[row]
        for d in range(0, D, 2):
            other = min(d + 1, D - 1)
            _two_products(inner_PI, rows, down_EDI[e, d], down_EDI[e, other], left_P, right_P)
            for row in range(rows):
                n, k = pairs_P[row] // K, pairs_P[row] % K
                out_ND[n, d] += left_P[row] * weights_NK[n, k]
                if other > d:
                    out_ND[n, other] += right_P[row] * weights_NK[n, k]


@compiled
def _sorted(experts_NK, E):
    """Pairs in order of their expert, stably, and the end of each expert's."""
    N, K = experts_NK.shape
    ends_E, order_P = np.zeros(E, np.int64), np.empty(N * K, np.int64)
    for n in range(N):
        for k in range(K):
            ends_E[experts_NK[n, k]] += 1
    next_E = np.zeros(E, np.int64)
    for e in range(1, E):
        next_E[e] = next_E[e - 1] + ends_E[e - 1]
    for n in range(N):
        for k in range(K):
            e = experts_NK[n, k]
            order_P[next_E[e]] = n * K + k
            next_E[e] += 1
    return order_P, next_E


@compiled
def _two_products(rows_PX, rows, left_X, right_X, left_P, right_P):
    """Every row times two vectors; four rows at a time, so that each number read is used several times."""
    X, row = rows_PX.shape[1], 0
    while row + 4 <= rows:
        r0, r1, r2, r3 = rows_PX[row], rows_PX[row + 1], rows_PX[row + 2], rows_PX[row + 3]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
        for x in range(X):
            a, b = left_X[x], right_X[x]
            a0 += r0[x] * a
            a1 += r1[x] * a
            a2 += r2[x] * a
            a3 += r3[x] * a
            b0 += r0[x] * b
            b1 += r1[x] * b
            b2 += r2[x] * b
            b3 += r3[x] * b
        left_P[row], left_P[row + 1], left_P[row + 2], left_P[row + 3] = a0, a1, a2, a3
        right_P[row], right_P[row + 1], right_P[row + 2], right_P[row + 3] = b0, b1, b2, b3
        row += 4
    while row < rows:
        r0 = rows_PX[row]
        a0 = b0 = np.float32(0)
        for x in range(X):
            a0 += r0[x] * left_X[x]
            b0 += r0[x] * right_X[x]
        left_P[row], right_P[row] = a0, b0
        row += 1
