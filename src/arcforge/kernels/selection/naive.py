"""Top-k selection with the tie rule, and the lightning indexer's scores. Legend: B rows, T queries, S keys, J index heads, D dims.

The maths is in README.md beside this file (DeepSeek-V3.2 report, section 2.1; GLM-5 report, sections 2.1.1 and 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def index_scores(q_BTJD: Tensor, k_BSD: Tensor, weights_BTJ: Tensor) -> Tensor:
    """I[t, s] = sum_j w[t, j] * relu(q[t, j] . k[s] * D^-0.5), float32 [B, T, S]; `weights` carry the J^-0.5.

    One matrix product per row over all heads; k is never copied per query (what makes transformers' indexer slow).
    """
    B, T, J, D = q_BTJD.shape
    dots_BXS = torch.bmm(q_BTJD.float().reshape(B, T * J, D), k_BSD.float().transpose(1, 2))
    relu_BTJS = torch.relu(dots_BXS * D**-0.5).view(B, T, J, -1)
    return torch.matmul(weights_BTJ.float().unsqueeze(-2), relu_BTJS).squeeze(-2)


def select_topk(scores_BTS: Tensor, allowed_BTS: Tensor, topk: int) -> Tensor:
    """Boolean mask [B, T, S] of the `topk` highest allowed scores per query; ties go to the lowest index.

    Deterministic whatever the device's topk does with ties: the k-th value is a property of the multiset, and equal
    scores are then taken in index order. Queries with at most `topk` allowed keys keep them all.
    """
    if scores_BTS.shape[-1] <= topk:
        return allowed_BTS
    masked_BTS = scores_BTS.masked_fill(~allowed_BTS, float("-inf"))
    kth_BT1 = masked_BTS.topk(topk, dim=-1, sorted=True).values[..., -1:]
    above_BTS = masked_BTS > kth_BT1
    tied_BTS = masked_BTS == kth_BT1
    room_BT1 = topk - above_BTS.sum(-1, keepdim=True)
    return (above_BTS | (tied_BTS & (tied_BTS.cumsum(-1) <= room_BT1))) & allowed_BTS
