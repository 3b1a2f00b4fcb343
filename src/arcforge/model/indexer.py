"""The lightning indexer of DeepSeek sparse attention. Legend: B rows, T queries, S keys, K selected keys, J index heads, D dims.

DeepSeek-V3.2 report, section 2.1; GLM-5 report, sections 2.1.1 and 3.2 (frozen indexer, deterministic top-k).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arcforge.kernels.attention.gathered import gathered_index_scores
from arcforge.kernels.selection.naive import index_scores
from arcforge.model.config import ModelConfig
from arcforge.model.layers import Alone, Layout, Linear, rotate


class Indexer(Alone):
    """Scores every visible key for every query; reads detached inputs, so the language loss never reaches it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dims, self.rope = config.index_n_heads, config.index_head_dim, config.qk_rope_head_dim
        self.wq_b = Linear(config.q_lora_rank, self.heads * self.dims)
        self.wk = Linear(config.hidden_size, self.dims)
        self.k_norm = nn.LayerNorm(self.dims, eps=1e-6)
        self.weights_proj = Linear(config.hidden_size, self.heads)

    def keys(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        """[B, T, index_head_dim], rope dimensions first."""
        k_BT1D = self.k_norm(self.wk(x_BTD)).unsqueeze(2)
        return self._rotate(k_BT1D, layout).squeeze(2)

    def queries(self, x_BTD: Tensor, q_latent_BTR: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Queries [B, T, J, index_head_dim] and head weights float32 [B, T, J], the factor J^-0.5 included."""
        B, T, _ = x_BTD.shape
        q_BTJD = self._rotate(self.wq_b(q_latent_BTR).view(B, T, self.heads, self.dims), layout)
        return q_BTJD, self.weights_proj(x_BTD).float() * self.heads**-0.5

    def _rotate(self, x_BTHD: Tensor, layout: Layout) -> Tensor:
        rope, rest = x_BTHD.split((self.rope, self.dims - self.rope), -1)
        return torch.cat((rotate(rope, layout.turns_BTP, self.alone), rest), -1)


@dataclass
class Index:
    """An indexer's view of one batch: q_BTJD, weights_BTJ float32, k_BSD."""

    q_BTJD: Tensor
    weights_BTJ: Tensor
    k_BSD: Tensor

    def scores(self, start: int, end: int, causal: bool) -> Tensor:
        """float32 [B, end - start, S']; causal: S' = end, query t is the t-th key and sees none after it."""
        queries, weights = self.q_BTJD[:, start:end], self.weights_BTJ[:, start:end]
        if causal:
            return index_scores(queries, self.k_BSD[:, :end], weights, first=start)
        return index_scores(queries, self.k_BSD, weights)

    def scores_at(self, start: int, end: int, positions_BTK: Tensor) -> Tensor:
        """float32 [B, end - start, K]: of the given keys alone."""
        queries, weights = self.q_BTJD[:, start:end], self.weights_BTJ[:, start:end]
        return gathered_index_scores(queries, self.k_BSD, weights, positions_BTK)


def indexer_divergence(target_BTS: Tensor, scores_BTS: Tensor, mask_BTS: Tensor) -> Tensor:
    """KL(p || softmax(I)) per query over the visible (dense warm-up) or selected (sparse stage) keys, float32 [B, T].

    p is 0 outside the mask and sums to 1 inside, so KL = sum p log p - sum p I + log sum exp I.
    """
    negentropy_BT = torch.special.xlogy(target_BTS, target_BTS).sum(-1)
    normaliser_BT = scores_BTS.masked_fill(~mask_BTS, torch.finfo(torch.float32).min).logsumexp(-1)
    return negentropy_BT - (target_BTS * scores_BTS).sum(-1) + normaliser_BT
