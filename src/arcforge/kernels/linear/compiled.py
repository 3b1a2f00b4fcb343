"""Few rows times a matrix as a compiled loop. Legend: N rows, K inner dims, O outer dims."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import carray, compiled, for_team, in_team, thread, threads


def linear(x: Tensor, w_OK: Tensor) -> Tensor:
    """x @ w.T for x [..., K], [..., O]; float32, without a gradient. Every number of the matrix is read once, by one thread."""
    out, (O, K) = torch.empty(*x.shape[:-1], len(w_OK)), w_OK.shape
    in_team(_part, O, [out.numel() // O, O, K], x.contiguous(), w_OK.detach().contiguous(), out)
    return out


@compiled
def two_products(rows_NK, left_K, right_K, left_N, right_N):
    """Every row times two vectors; four rows at a time, so that each number read is used several times."""
    N, K = rows_NK.shape
    for n in range(0, N - N % 4, 4):
        a, b, c, d = rows_NK[n], rows_NK[n + 1], rows_NK[n + 2], rows_NK[n + 3]
        la = lb = lc = ld = ra = rb = rc = rd = np.float32(0)
        for k in range(K):
            left, right = left_K[k], right_K[k]
            la += a[k] * left
            lb += b[k] * left
            lc += c[k] * left
            ld += d[k] * left
            ra += a[k] * right
            rb += b[k] * right
            rc += c[k] * right
            rd += d[k] * right
        left_N[n], left_N[n + 1], left_N[n + 2], left_N[n + 3] = la, lb, lc, ld
        right_N[n], right_N[n + 1], right_N[n + 2], right_N[n + 3] = ra, rb, rc, rd
    for n in range(N - N % 4, N):
        a, la, ra = rows_NK[n], np.float32(0), np.float32(0)
        for k in range(K):
            la += a[k] * left_K[k]
            ra += a[k] * right_K[k]
        left_N[n], right_N[n] = la, ra


@for_team
def _part(data):
    N, O, K = carray(data[0], 3, np.int64)
    x_NK, w_OK = carray(data[1], (N, K), np.float32), carray(data[2], (O, K), np.float32)
    out_NO, left_N, right_N = carray(data[3], (N, O), np.float32), np.empty(N, np.float32), np.empty(N, np.float32)
    end = O * (thread() + 1) // threads()
    for o in range(O * thread() // threads(), end, 2):
        other = min(o + 1, end - 1)
        two_products(x_NK, w_OK[o], w_OK[other], left_N, right_N)
        for n in range(N):
            out_NO[n, o], out_NO[n, other] = left_N[n], right_N[n]
