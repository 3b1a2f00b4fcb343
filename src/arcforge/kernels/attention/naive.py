"""Multi-head latent attention in its two forms. Legend: B rows, T queries, S keys, H heads, R latent rank, P rope dims, V value dims.

Both forms compute the same function of the same weights (GLM-5 report, section 2.1; README.md beside this file).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arcforge.kernels.row_tiles.naive import rows_times

QUERY_CHUNK = 128


def mha(q_BHTK: Tensor, k_BHSK: Tensor, v_BHSV: Tensor, mask_BTS: Tensor | None, scale: float) -> Tensor:
    """MHA form for training and prefill, [B, H, T, V]. mask None means causal over equal lengths."""
    if mask_BTS is None:
        return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSV, is_causal=True, scale=scale)
    return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSV, attn_mask=mask_BTS.unsqueeze(1), scale=scale)


@torch.no_grad()
def attention_distribution(q_BHTK: Tensor, k_BHSK: Tensor, mask_BTS: Tensor, scale: float, first: int = 0) -> Tensor:
    """Head-summed, L1-normalised attention p, float32 [B, T, S], detached: the indexer's target.

    Query t is key first + t and sees none after it, so keys after a chunk's last query are not even computed.
    """
    T = q_BHTK.shape[2]
    result_BTS = torch.zeros(mask_BTS.shape, dtype=torch.float32, device=mask_BTS.device)
    for start in range(0, T, QUERY_CHUNK):
        end = min(T, start + QUERY_CHUNK)
        keys = first + end
        scores_BHTS = torch.matmul(q_BHTK[:, :, start:end], k_BHSK[:, :, :keys].transpose(-1, -2)).float() * scale
        scores_BHTS.masked_fill_(~mask_BTS[:, None, start:end, :keys], torch.finfo(torch.float32).min)
        result_BTS[:, start:end, :keys] = scores_BHTS.softmax(-1).mean(1)
    return result_BTS.masked_fill_(~mask_BTS, 0.0)


def as_bias(mask: Tensor) -> Tensor:
    """A boolean mask as float32 to add to scores: 0, or so low that nothing is left of the key after the softmax."""
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min / 2)


def mqa_absorbed(q_BTHC: Tensor, keys_BSC: Tensor, rank: int, bias_BTS: Tensor, scale: float) -> Tensor:
    """Absorbed MQA form for decoding over the latent cache; returns the attended latents [B, T, H, R].

    C = R + P: queries are [absorbed | rope], keys [latent | rope]; the latents (the first `rank` columns) are the values.
    bias: `as_bias` of what each query may see.
    """
    B, T, H, C = q_BTHC.shape
    bias_BXS = bias_BTS if T == 1 else bias_BTS.unsqueeze(2).expand(-1, -1, H, -1).reshape(B, T * H, -1)
    scores_BXS = torch.baddbmm(
        bias_BXS.to(q_BTHC.dtype), q_BTHC.reshape(B, T * H, C), keys_BSC.transpose(1, 2), alpha=scale
    )
    probs_BXS = scores_BXS.float().softmax(-1).to(keys_BSC.dtype)
    return torch.bmm(probs_BXS, keys_BSC[..., :rank]).view(B, T, H, rank)


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
    """`mqa_absorbed` of one query per row over the keys first..last (int64, both included) of its row, [B, H, R].

    Key s of row b is keys[tables[b, s // block] * block + s % block]; keys of a negative block are not seen.
    """
    blocks_XC = keys_NC.view(-1, block * keys_NC.shape[-1])
    keys_BSC = blocks_XC.index_select(0, tables_BX.flatten().clamp(min=0)).view(len(tables_BX), -1, keys_NC.shape[-1])
    places_S = torch.arange(keys_BSC.shape[1], device=q_BHC.device)
    seen_BS = (places_S >= first_B.unsqueeze(-1)) & (places_S <= last_B.unsqueeze(-1))
    seen_BS &= (tables_BX >= 0).repeat_interleave(block, 1)
    return mqa_absorbed(q_BHC.unsqueeze(1), keys_BSC, rank, as_bias(seen_BS).unsqueeze(1), scale).squeeze(1)


def mqa_alone(q_THC: Tensor, keys_SC: Tensor, rank: int, mask_TS: Tensor, scale: float) -> Tensor:
    """`mqa_absorbed` of one request's queries, [T, H, R]; bit for bit the same for a query however many others there are."""
    T, H, C = q_THC.shape
    scores_THS = rows_times(q_THC.reshape(T * H, C), keys_SC.T).view(T, H, -1).float() * scale
    scores_THS = scores_THS.masked_fill(~mask_TS.unsqueeze(1), torch.finfo(torch.float32).min)
    probs_XS = scores_THS.softmax(-1).to(keys_SC.dtype).flatten(0, 1)
    return rows_times(probs_XS, keys_SC[:, :rank].contiguous()).view(T, H, rank)
