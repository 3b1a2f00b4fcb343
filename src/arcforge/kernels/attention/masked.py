"""MHA over causal masks, in pieces of queries. Legend: B rows, T queries and keys, S keys that a range of queries may see, H heads,
K key dims, V value dims, X queries of a piece, Z its keys.

The same function as `naive.mha` (README.md beside this file). Attention weights exist for one piece at a time: the backward
pass computes them again, which costs one product in seven and saves the [B, H, T, S] tensors of all layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

PIECE = 64
"""Most queries of a piece: few enough for their weights to stay in a core's caches and for keys after them to be left out."""
PIECE_BYTES = 64 << 20
"""Most bytes of a piece's attention weights."""


def masked_mha(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, masks: Sequence[tuple[int, Tensor]], scale: float
) -> Tensor:
    """[B, H, T, V]; query t is key t and sees none after it.

    masks: consecutive ranges of queries that make up T together, each (first key, bool [B, queries, S]): the keys before the
    first are seen by none of them, S reaches at least to the range's last query. Every query must see at least one key.
    """
    firsts = tuple(first for first, _ in masks)
    return _MaskedMHA.apply(q_BHTK, k_BHTK, v_BHTV, scale, firsts, *(mask for _, mask in masks))  # type: ignore[return-value]


class _MaskedMHA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, scale: float, firsts: tuple[int, ...], *masks: Tensor
    ) -> Tensor:
        # Otherwise every product of every piece copies its rows and heads together.
        q_BHTK, k_BHTK, v_BHTV = q_BHTK.contiguous(), k_BHTK.contiguous(), v_BHTV.contiguous()
        B, H, T, _ = q_BHTK.shape
        # Laid out by token, as the output projection reads it: a second copy of it would be kept for that one otherwise.
        out_BHTV = q_BHTK.new_empty(B, T, H, v_BHTV.shape[-1]).transpose(1, 2)
        for queries, keys, mask_BXZ in _pieces(q_BHTK, firsts, masks):
            probs_BHXZ = _attend(q_BHTK[:, :, queries], k_BHTK[:, :, keys], mask_BXZ, scale)
            out_BHTV[:, :, queries] = torch.matmul(probs_BHXZ, v_BHTV[:, :, keys])
        ctx.save_for_backward(q_BHTK, k_BHTK, v_BHTV, out_BHTV, *masks)
        ctx.scale, ctx.firsts = scale, firsts
        return out_BHTV

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q_BHTK, k_BHTK, v_BHTV, out_BHTV, *masks = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q_BHTK), torch.zeros_like(k_BHTK), torch.zeros_like(v_BHTV)
        # sum_s p dp, the softmax's own term, is upstream . output: no pass over the keys is needed for it.
        upstream_BHTV = grads[0].contiguous()
        inner_BHT1 = (upstream_BHTV * out_BHTV).sum(-1, keepdim=True)
        for queries, keys, mask_BXZ in _pieces(q_BHTK, ctx.firsts, masks):
            q, k, up = q_BHTK[:, :, queries], k_BHTK[:, :, keys], upstream_BHTV[:, :, queries]
            probs = _attend(q, k, mask_BXZ, ctx.scale)
            dv[:, :, keys] += torch.matmul(probs.transpose(-1, -2), up)
            dprobs = torch.matmul(up, v_BHTV[:, :, keys].transpose(-1, -2))
            dscores = dprobs.sub_(inner_BHT1[:, :, queries]).mul_(probs)
            dq[:, :, queries] = torch.matmul(dscores, k)
            dk[:, :, keys] += torch.matmul(dscores.transpose(-1, -2), q)
        return dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv, None, None, *(None for _ in masks)


def _attend(q_BHXK: Tensor, k_BHZK: Tensor, mask_BXZ: Tensor, scale: float) -> Tensor:
    """Attention weights [B, H, X, Z], at least float32 inside, exactly 0 where masked. A bias is added because that is a ninth
    of the work of filling in a masked value per head; it is made by arithmetic for the same reason."""
    scores_BHXZ = torch.matmul(q_BHXK * scale, k_BHZK.transpose(-1, -2))
    scores_BHXZ = scores_BHXZ.to(torch.promote_types(scores_BHXZ.dtype, torch.float32))
    bias_BXZ = mask_BXZ.to(scores_BHXZ.dtype).sub_(1.0).mul_(torch.finfo(torch.float32).max / 2)
    return scores_BHXZ.add_(bias_BXZ.unsqueeze(1)).softmax(-1).to(q_BHXK.dtype)


def _pieces(q_BHTK: Tensor, firsts: Sequence[int], masks: Sequence[Tensor]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Queries, keys and the mask [B, X, Z] of each piece."""
    B, H = q_BHTK.shape[:2]
    begin = 0
    for first, mask_BTS in zip(firsts, masks, strict=True):
        count = mask_BTS.shape[1]
        size = max(1, min(PIECE, PIECE_BYTES // (4 * B * H * mask_BTS.shape[2])))
        for start in range(0, count, size):
            end = min(start + size, count)
            last = begin + end
            yield slice(begin + start, last), slice(first, last), mask_BTS[:, start:end, : last - first]
        begin += count
