"""Absorbed MQA read from the blocks of a cache where they lie, as a compiled loop. Legend: B rows, each with one query, X blocks of a
row, H heads, R latent rank, C = R + rope.

A batch's rows differ in length and lie in blocks; `mqa_absorbed` takes a copy of them that is padded to the longest.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import carray, compiled, for_team, in_team, thread, threads

TILE = 4
"""Keys that are read side by side, so that a query's or a result's number is loaded once for all of them."""


def paged_mqa(
    q_BHC: Tensor,
    keys_NC: Tensor,
    tables_BX: Tensor,
    block: int,
    first_B: Tensor,
    last_B: Tensor,
    rank: int,
    scale: float,
) -> Tensor:
    """`naive.paged_mqa` in float32, without a gradient; a query's result does not depend on the others."""
    (B, H, C), scale_1 = q_BHC.shape, torch.tensor([scale], dtype=torch.float32)
    out_BHR = torch.empty(B, H, rank)
    sizes = [B, H, C, rank, len(keys_NC), tables_BX.shape[1], block]
    places = (tables_BX.contiguous(), first_B.contiguous(), last_B.contiguous())
    in_team(_part, B, sizes, q_BHC.contiguous(), keys_NC, *places, scale_1, out_BHR)
    return out_BHR


@compiled
def _attend(q_BHC, keys_NC, tables_BX, block, first_B, last_B, scale, out_BHR, begin, end):
    H = q_BHC.shape[1]
    places_Z = np.empty(tables_BX.shape[1] * block + TILE, np.int64)
    weights_HZ = np.empty((H + 1, len(places_Z)), np.float32)
    unused_R = np.empty(out_BHR.shape[2], np.float32)  # what the odd head is paired with
    for b in range(begin, end):
        seen = _places(tables_BX[b], block, first_B[b], last_B[b] + 1, places_Z)
        for z in range(0, seen, TILE):
            keys = _tile(keys_NC, places_Z, z)
            for h in range(0, H, 2):
                _scores(q_BHC[b, h], q_BHC[b, min(h + 1, H - 1)], keys, scale, weights_HZ[h : h + 2, z : z + TILE])
        for h in range(H):
            _softmax(weights_HZ[h], seen)
            out_BHR[b, h] = 0
        for z in range(0, seen, TILE):
            keys = _tile(keys_NC, places_Z, z)
            for h in range(0, H, 2):
                other_R = out_BHR[b, h + 1] if h + 1 < H else unused_R
                _add(weights_HZ[h : h + 2, z : z + TILE], keys, out_BHR[b, h], other_R)


@compiled
def _places(tables_X, block, first, end, places_Z):
    """Where the keys first..end-1 lie that are seen; their number. Up to the next tile the last one is repeated."""
    seen = 0
    for s in range(first, end):
        if tables_X[s // block] >= 0:
            places_Z[seen] = tables_X[s // block] * block + s % block
            seen += 1
    places_Z[seen : seen + TILE] = places_Z[seen - 1]
    return seen


@compiled
def _tile(keys_NC, places_Z, z):
    return keys_NC[places_Z[z]], keys_NC[places_Z[z + 1]], keys_NC[places_Z[z + 2]], keys_NC[places_Z[z + 3]]


@compiled
def _scores(q_C, r_C, keys, scale, scores):
    """Of two heads' queries and a tile of keys."""
    a, b, c, d = keys
    qa = qb = qc = qd = ra = rb = rc = rd = np.float32(0)
    for i in range(len(q_C)):
        q, r = q_C[i], r_C[i]
        qa += q * a[i]
        qb += q * b[i]
        qc += q * c[i]
        qd += q * d[i]
        ra += r * a[i]
        rb += r * b[i]
        rc += r * c[i]
        rd += r * d[i]
    scores[0, 0], scores[0, 1], scores[0, 2], scores[0, 3] = qa * scale, qb * scale, qc * scale, qd * scale
    scores[1, 0], scores[1, 1], scores[1, 2], scores[1, 3] = ra * scale, rb * scale, rc * scale, rd * scale


@compiled
def _softmax(scores_Z, seen):
    """In place; 0 after what is seen."""
    highest, total = scores_Z[0], np.float32(0)
    for z in range(1, seen):
        highest = max(highest, scores_Z[z])
    for z in range(seen):
        scores_Z[z] = np.exp(scores_Z[z] - highest)
        total += scores_Z[z]
    for z in range(seen):
        scores_Z[z] /= total
    scores_Z[seen : seen + TILE] = 0


@compiled
def _add(weights, keys, out_R, other_R):
    """A tile of keys, weighed, to the results of two heads."""
    a, b, c, d = keys
    oa, ob, oc, od = weights[0, 0], weights[0, 1], weights[0, 2], weights[0, 3]
    pa, pb, pc, pd = weights[1, 0], weights[1, 1], weights[1, 2], weights[1, 3]
    for r in range(len(out_R)):
        out_R[r] += oa * a[r] + ob * b[r] + oc * c[r] + od * d[r]
        other_R[r] += pa * a[r] + pb * b[r] + pc * c[r] + pd * d[r]


@for_team
def _part(data):
    B, H, C, R, N, X, block = carray(data[0], 7, np.int64)
    q_BHC = carray(data[1], (B, H, C), np.float32)
    keys_NC = carray(data[2], (N, C), np.float32)
    tables_BX = carray(data[3], (B, X), np.int64)
    first_B, last_B = carray(data[4], B, np.int64), carray(data[5], B, np.int64)
    scale, out_BHR = carray(data[6], 1, np.float32)[0], carray(data[7], (B, H, R), np.float32)
    begin, end = B * thread() // threads(), B * (thread() + 1) // threads()
    _attend(q_BHC, keys_NC, tables_BX, block, first_B, last_B, scale, out_BHR, begin, end)
