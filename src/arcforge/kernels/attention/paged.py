"""Absorbed MQA read from the blocks of a cache where they lie, as a compiled loop. Legend: N queries, B rows, X blocks of a row,
H heads, R latent rank, C = R + rope.

A batch's rows differ in length and lie in blocks; `mqa_absorbed` takes a copy of them that is padded to the longest.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import compiled


def paged_mqa(
    q_BTHC: Tensor,
    keys_SC: Tensor,
    tables_BX: Tensor,
    block: int,
    first_BT: Tensor,
    last_BT: Tensor,
    rank: int,
    scale: float,
) -> Tensor:
    """`naive.paged_mqa` in float32, without a gradient; a query's result does not depend on the others."""
    B, T, H, C = q_BTHC.shape
    out_NHR = torch.empty(B * T, H, rank)
    _attend(
        q_BTHC.reshape(B * T, H, C).numpy(),
        keys_SC.numpy(),
        tables_BX.numpy(),
        block,
        first_BT.flatten().numpy(),
        last_BT.flatten().numpy(),
        np.float32(scale),
        out_NHR.numpy(),
    )
    return out_NHR.view(B, T, H, rank)


@compiled
def _attend(q_NHC, keys_SC, tables_BX, block, first_N, last_N, scale, out_NHR):
    N, H, C = q_NHC.shape
    R, T = out_NHR.shape[2], N // tables_BX.shape[0]
    scores_HS = np.empty((H, tables_BX.shape[1] * block), np.float32)
    for n in range(N):
        tables_X, first, end = tables_BX[n // T], first_N[n], last_N[n] + 1
        for s in range(first, end):
            place = tables_X[s // block]
            if place < 0:
                scores_HS[:, s] = -np.inf
                continue
            key_C = keys_SC[place * block + s % block]
            for h in range(H):
                q_C, score = q_NHC[n, h], np.float32(0)
                for c in range(C):
                    score += q_C[c] * key_C[c]
                scores_HS[h, s] = score * scale
        for h in range(H):
            _softmax(scores_HS[h, first:end])
            out_NHR[n, h] = 0
        for s in range(first, end):
            place = tables_X[s // block]
            if place < 0:
                continue
            key_C = keys_SC[place * block + s % block]
            for h in range(H):
                weight, out_R = scores_HS[h, s], out_NHR[n, h]
                for r in range(R):
                    out_R[r] += weight * key_C[r]


@compiled
def _softmax(scores_S):
    highest, total = scores_S[0], np.float32(0)
    for s in range(1, len(scores_S)):
        highest = max(highest, scores_S[s])
    for s in range(len(scores_S)):
        scores_S[s] = np.exp(scores_S[s] - highest)
        total += scores_S[s]
    for s in range(len(scores_S)):
        scores_S[s] /= total
