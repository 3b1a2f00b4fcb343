"""Sparse attention that does work for the selected keys alone. Legend: B rows, T queries, S keys, K selected keys, H heads,
R latent rank, C = R + rope dims, D index dims, J index heads; N = queries of a piece.

Absorbed MQA over gathered latents (README.md beside this file; GLM-5 report, section 2.1.1). Nothing of [T, S] exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED_BYTES = 16 << 20
"""Gathered keys of one piece of queries: they should stay in a core's caches."""


def gathered_mqa(
    q_BTHC: Tensor, keys_BSC: Tensor, positions_BTK: Tensor, chosen_BTK: Tensor, rank: int, scale: float
) -> Tensor:
    """Attended latents [B, T, H, R]; every query reads its own keys. positions: int64, any value where not chosen.

    Memory beyond inputs and gradients is one piece of GATHERED_BYTES: the backward pass gathers again. Every query must
    have at least one chosen key.
    """
    return _GatheredMQA.apply(q_BTHC, keys_BSC, positions_BTK, chosen_BTK, rank, scale)  # type: ignore[return-value]


@torch.no_grad()
def gathered_distribution(
    q_BTHC: Tensor, keys_BSC: Tensor, positions_BTK: Tensor, chosen_BTK: Tensor, scale: float
) -> Tensor:
    """Head-summed, L1-normalised attention over the chosen keys, float32 [B, T, K], detached: the indexer's target."""
    B, T, K = positions_BTK.shape
    q_NHC, flat_NK, chosen_NK = q_BTHC.flatten(0, 1), _flat(positions_BTK, keys_BSC.shape[1]), chosen_BTK.flatten(0, 1)
    keys_XC = keys_BSC.flatten(0, 1)
    result_NK = torch.empty(B * T, K, dtype=torch.float32, device=q_BTHC.device)
    for piece in _pieces(B * T, K, keys_XC):
        _, probs_NHK = _attend(q_NHC[piece], keys_XC, flat_NK[piece], chosen_NK[piece], scale)
        result_NK[piece] = probs_NHK.mean(1)
    return result_NK.view(B, T, K)


def gathered_index_scores(q_BTJD: Tensor, k_BSD: Tensor, weights_BTJ: Tensor, positions_BTK: Tensor) -> Tensor:
    """Index scores of the given keys alone, float32 [B, T, K]; `weights` carry the J^-0.5. Differentiable."""
    B, T, K = positions_BTK.shape
    D = q_BTJD.shape[-1]
    keys_NKD = F.embedding(_flat(positions_BTK, k_BSD.shape[1]), k_BSD.float().flatten(0, 1))
    dots_NJK = torch.bmm(q_BTJD.float().flatten(0, 1), keys_NKD.transpose(1, 2)) * D**-0.5
    return torch.bmm(weights_BTJ.float().flatten(0, 1).unsqueeze(1), dots_NJK.relu()).view(B, T, K)


class _GatheredMQA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BTHC: Tensor, keys_BSC: Tensor, positions_BTK: Tensor, chosen_BTK: Tensor, rank: int, scale: float
    ) -> Tensor:
        B, T, H, _ = q_BTHC.shape
        flat_NK, chosen_NK = _flat(positions_BTK, keys_BSC.shape[1]), chosen_BTK.flatten(0, 1)
        q_NHC, keys_XC = q_BTHC.flatten(0, 1), keys_BSC.flatten(0, 1)
        out_NHR = q_BTHC.new_empty(B * T, H, rank)
        for piece in _pieces(B * T, positions_BTK.shape[-1], keys_XC):
            gathered, probs = _attend(q_NHC[piece], keys_XC, flat_NK[piece], chosen_NK[piece], scale)
            out_NHR[piece] = torch.bmm(probs.to(gathered.dtype), gathered[..., :rank])
        ctx.save_for_backward(q_BTHC, keys_BSC, flat_NK, chosen_NK, out_NHR)
        ctx.rank, ctx.scale = rank, scale
        return out_NHR.view(B, T, H, rank)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q_BTHC, keys_BSC, flat_NK, chosen_NK, out_NHR = ctx.saved_tensors
        upstream_NHR = grads[0].flatten(0, 1)
        q_NHC, keys_XC = q_BTHC.flatten(0, 1), keys_BSC.flatten(0, 1)
        dq_NHC, dkeys_XC = torch.empty_like(q_NHC), torch.zeros_like(keys_XC)
        rank, scale = ctx.rank, ctx.scale
        # sum_k p dp, the softmax's own term, is upstream . output: no pass over the keys is needed for it.
        inner_NH1 = (upstream_NHR.float() * out_NHR.float()).sum(-1, keepdim=True)
        for piece in _pieces(flat_NK.shape[0], flat_NK.shape[1], keys_XC):
            up = upstream_NHR[piece]
            gathered, probs = _attend(q_NHC[piece], keys_XC, flat_NK[piece], chosen_NK[piece], scale)
            dprobs = torch.bmm(up, gathered[..., :rank].transpose(1, 2)).float()
            dscores = (probs * (dprobs - inner_NH1[piece]) * scale).to(gathered.dtype)
            dq_NHC[piece] = torch.bmm(dscores, gathered)
            # Keys get their part of the scores, latents (as values) that of the outputs too: one product, written once.
            both = torch.cat((dscores, probs.to(gathered.dtype)), 1).transpose(1, 2)
            dgathered = torch.bmm(both, torch.cat((q_NHC[piece], F.pad(up, (0, keys_XC.shape[-1] - rank))), 1))
            # The backward of an embedding adds rows up by index, in parallel; index_add_ does not.
            dkeys_XC += torch.ops.aten.embedding_dense_backward(dgathered, flat_NK[piece], keys_XC.shape[0], -1, False)
        return dq_NHC.view_as(q_BTHC), dkeys_XC.view_as(keys_BSC), None, None, None, None


def _attend(q_NHC: Tensor, keys_XC: Tensor, flat_NK: Tensor, chosen_NK: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Gathered keys [N, K, C] and float32 attention over them [N, H, K], exactly 0 where not chosen."""
    gathered_NKC = F.embedding(flat_NK, keys_XC)
    scores_NHK = torch.bmm(q_NHC, gathered_NKC.transpose(1, 2)).float() * scale
    scores_NHK = scores_NHK.masked_fill(~chosen_NK.unsqueeze(1), torch.finfo(torch.float32).min)
    return gathered_NKC, scores_NHK.softmax(-1)


def _flat(positions_BTK: Tensor, S: int) -> Tensor:
    """Positions among the keys of all rows, [B T, K]."""
    rows_B11 = torch.arange(positions_BTK.shape[0], device=positions_BTK.device)[:, None, None] * S
    return (positions_BTK + rows_B11).flatten(0, 1)


def _pieces(queries: int, selected: int, keys_XC: Tensor) -> Iterator[slice]:
    size = max(1, GATHERED_BYTES // (selected * keys_XC.shape[-1] * keys_XC.element_size()))
    for start in range(0, queries, size):
        yield slice(start, min(queries, start + size))
