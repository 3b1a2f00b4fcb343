"""Top-k selection with the tie rule, and the lightning indexer's scores. Legend: B rows, T queries, S keys, J index heads, D dims.

The maths is in README.md beside this file (DeepSeek-V3.2 report, section 2.1; GLM-5 report, sections 2.1.1 and 3.2).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arcforge.kernels.row_tiles.naive import rows_times

GROUP = 8
"""Keys of a group, of which only the highest is looked at first."""
MOST_QUERIES = 128
PRODUCT_BYTES = 16 << 20
"""Most bytes of one chunk's products of all heads."""


def index_scores(q_BTJD: Tensor, k_BSD: Tensor, weights_BTJ: Tensor, first: int | None = None) -> Tensor:
    """I[t, s] = sum_j w[t, j] * relu(q[t, j] . k[s] * D^-0.5), float32 [B, T, S]; `weights` carry the J^-0.5.

    Heads are added up chunk by chunk of queries. first: query t is key first + t and sees none after it; keys after a chunk's
    last query are left at 0, for the caller's mask removes them. None: every query may see every key.
    """
    B, T, J, D = q_BTJD.shape
    S = k_BSD.shape[1]
    scaled_BXD = (q_BTJD.float() * D**-0.5).flatten(1, 2)
    weights_BTJ, keys_BDS = weights_BTJ.float(), k_BSD.float().transpose(1, 2)
    size = max(1, min(MOST_QUERIES, PRODUCT_BYTES // (4 * B * J * S)))
    chunks = []
    for start in range(0, T, size):
        end = min(T, start + size)
        visible = S if first is None else min(S, first + end)
        products_BXS = torch.bmm(scaled_BXD[:, start * J : end * J], keys_BDS[..., :visible]).relu_()
        weights_N1J = weights_BTJ[:, start:end].reshape(-1, 1, J)
        total = torch.bmm(weights_N1J, products_BXS.view(-1, J, visible)).view(B, end - start, visible)
        chunks.append(F.pad(total, (0, S - visible)))
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, 1)


def index_scores_alone(q_TJD: Tensor, k_SD: Tensor, weights_TJ: Tensor) -> Tensor:
    """`index_scores` of one request's queries, float32 [T, S]; bit for bit the same for a query however many others there are."""
    T, J, D = q_TJD.shape
    products_TJS = rows_times((q_TJD.float() * D**-0.5).flatten(0, 1), k_SD.float().T).relu_().view(T, J, -1)
    return (products_TJS * weights_TJ.float().unsqueeze(-1)).sum(1)


def select_topk(scores_BTS: Tensor, allowed_BTS: Tensor, topk: int) -> Tensor:
    """Boolean mask [B, T, S] of the `topk` highest allowed scores per query; ties go to the lowest index.

    Deterministic whatever the device's topk does with ties: the k-th value is a property of the multiset, and equal
    scores are then taken in index order. Queries with at most `topk` allowed keys keep them all.
    """
    if scores_BTS.shape[-1] <= topk:
        return allowed_BTS
    masked_BTS = torch.where(allowed_BTS, scores_BTS, float("-inf"))
    kth_BT1 = _kth_highest(masked_BTS, topk)
    chosen_BTS = (masked_BTS >= kth_BT1) & allowed_BTS
    crowded_BT = chosen_BTS.sum(-1, dtype=torch.int32) > topk
    if crowded_BT.any():
        chosen_BTS[crowded_BT] = _break_ties(masked_BTS[crowded_BT], kth_BT1[crowded_BT], topk)
    return chosen_BTS


def selected_positions(scores_BTS: Tensor, allowed_BTS: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The same choice as positions [B, T, K] with a mask [B, T, K] of the real ones, K = min(topk, S): what is gathered."""
    topk = min(topk, scores_BTS.shape[-1])
    masked_BTS = scores_BTS.masked_fill(~allowed_BTS, float("-inf"))
    values_BTK, positions_BTK = _highest(masked_BTS, topk)
    kth_BT1 = values_BTK.amin(-1, keepdim=True)
    crowded_BT = ((masked_BTS >= kth_BT1).sum(-1, dtype=torch.int32) > topk) & (kth_BT1.squeeze(-1) > float("-inf"))
    if crowded_BT.any():
        chosen_NS = _break_ties(masked_BTS[crowded_BT], kth_BT1[crowded_BT], topk)
        positions_BTK[crowded_BT] = chosen_NS.nonzero()[:, 1].view(-1, topk)
        values_BTK[crowded_BT] = 0.0
    return positions_BTK, values_BTK > float("-inf")


def _highest(scores_BTS: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest and where they stand, in any order. In long rows on a CPU only the k groups with the highest members are
    looked into: they hold k scores that reach the k-th."""
    if scores_BTS.is_cuda or scores_BTS.shape[-1] < 2 * GROUP * k:
        return scores_BTS.topk(k, dim=-1, sorted=False)
    best_BTK, members_BTN = _best_groups(scores_BTS, k)
    values_BTK, places_BTK = members_BTN.topk(k, dim=-1, sorted=False)
    positions_BTK = best_BTK.gather(-1, places_BTK // GROUP) * GROUP + places_BTK % GROUP
    return values_BTK, positions_BTK.clamp_(max=scores_BTS.shape[-1] - 1)


def _best_groups(scores_BTS: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k groups with the highest members, and all members of those, [B, T, k * GROUP]; past the end of a row: -inf."""
    padded = F.pad(scores_BTS, (0, -scores_BTS.shape[-1] % GROUP), value=float("-inf"))
    groups_BTGX = padded.unflatten(-1, (-1, GROUP))
    best_BTK = groups_BTGX.amax(-1).topk(k, dim=-1, sorted=False).indices
    return best_BTK, groups_BTGX.gather(-2, best_BTK.unsqueeze(-1).expand(*best_BTK.shape, GROUP)).flatten(-2)


def _kth_highest(scores_BTS: Tensor, k: int) -> Tensor:
    """[B, T, 1]. On a CPU numpy's selection is vectorised and several times faster than torch's; in long rows it looks into the
    k groups with the highest members alone: they hold k scores that reach the k-th."""
    if scores_BTS.is_cuda:
        return scores_BTS.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    scores_BTS = scores_BTS.detach()
    if scores_BTS.shape[-1] >= 2 * GROUP * k:
        _, scores_BTS = _best_groups(scores_BTS, k)
    place = scores_BTS.shape[-1] - k
    return torch.from_numpy(np.partition(scores_BTS.numpy(), place)[..., place : place + 1])


def _break_ties(scores_NS: Tensor, kth_N1: Tensor, topk: int) -> Tensor:
    """All scores above the k-th value, then as many equal to it as there is room, lowest index first."""
    above_NS = scores_NS > kth_N1
    tied_NS = scores_NS == kth_N1
    room_N1 = topk - above_NS.sum(-1, keepdim=True, dtype=torch.int32)
    return above_NS | (tied_NS & (tied_NS.cumsum(-1, dtype=torch.int32) <= room_N1))
