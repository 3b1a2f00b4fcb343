"""Multi-head latent attention with the lightning indexer. Legend: B rows, T queries, S keys, H heads, D hidden, R latent rank.

GLM-5 report, section 2.1 (MLA-256, DSA); DeepSeek-V3.2 report, section 2.1 (indexer). One set of weights, two forms:
MHA for training, absorbed MQA over the latent cache for generation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcforge.kernels.attention.naive import attention_distribution, mha, mqa_absorbed
from arcforge.kernels.selection.naive import index_scores, select_topk, selected_positions
from arcforge.model.cache import CacheView
from arcforge.model.config import ModelConfig
from arcforge.model.layers import Layout, RMSNorm, rotate


class Indexer(nn.Module):
    """Scores every visible key for every query; reads detached inputs, so the language loss never reaches it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dims, self.rope = config.index_n_heads, config.index_head_dim, config.qk_rope_head_dim
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.dims, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.dims, bias=False)
        self.k_norm = nn.LayerNorm(self.dims, eps=1e-6)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def keys(self, x_BTD: Tensor, layout: Layout) -> Tensor:
        """[B, T, index_head_dim], rope dimensions first."""
        k_BT1D = self.k_norm(self.wk(x_BTD)).unsqueeze(2)
        return self._rotate(k_BT1D, layout).squeeze(2)

    def scores(
        self, x_BTD: Tensor, q_latent_BTR: Tensor, keys_BSD: Tensor, layout: Layout, causal: bool = False
    ) -> Tensor:
        """float32 [B, T, S]. causal: query t is the t-th key and sees none after it."""
        B, T, _ = x_BTD.shape
        q_BTJD = self._rotate(self.wq_b(q_latent_BTR).view(B, T, self.heads, self.dims), layout)
        return index_scores(q_BTJD, keys_BSD, self.weights_proj(x_BTD).float() * self.heads**-0.5, causal)

    def _rotate(self, x_BTHD: Tensor, layout: Layout) -> Tensor:
        rope, rest = x_BTHD.split((self.rope, self.dims - self.rope), -1)
        return torch.cat((rotate(rope, layout.cos_BTP, layout.sin_BTP), rest), -1)


class MLA(nn.Module):
    """Attention over compressed latents. `layer` names its place in the cache."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        H, D = config.num_attention_heads, config.hidden_size
        self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=False)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, config.latent_norm_eps)
        self.q_b_proj = nn.Linear(config.q_lora_rank, H * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(D, config.kv_lora_rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, config.latent_norm_eps)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, H * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = nn.Linear(H * config.v_head_dim, D, bias=False)
        self.indexer = Indexer(config)
        self.scale = config.qk_head_dim**-0.5
        self.window = config.layer_windows[layer] if layer < len(config.layer_windows) else 0

    def forward(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
        """MHA form over the batch's own rows; returns the output and the indexer's KL per query [B, T] (or None)."""
        q_latent_BTR, q_nope, q_rope_BTHP = self._queries(x_BTD, layout)
        latent_BTR, k_rope_BTP = self._latents(x_BTD, layout)
        q_BHTK = torch.cat((q_nope, q_rope_BTHP), -1).transpose(1, 2)
        k_BHTK, v_BHTV = self._expand(latent_BTR, k_rope_BTP)
        mask_BTS, scores_BTS = layout.allowed_BTS, None
        if self.window:
            mask_BTS = self._windowed(layout, layout.positions_BT)
        if layout.sparse or layout.indexer_loss:
            assert mask_BTS is not None, "sparse attention needs the visibility mask"
            x_free, q_free = x_BTD.detach(), q_latent_BTR.detach()
            with torch.set_grad_enabled(layout.indexer_loss and torch.is_grad_enabled()):
                scores_BTS = self.indexer.scores(x_free, q_free, self.indexer.keys(x_free, layout), layout, causal=True)
            if layout.sparse:
                mask_BTS = select_topk(scores_BTS.detach(), mask_BTS, self.config.index_topk)
        kl_BT = None
        if layout.indexer_loss:
            assert mask_BTS is not None and scores_BTS is not None
            target_BTS = attention_distribution(q_BHTK, k_BHTK, mask_BTS, self.scale)
            kl_BT = indexer_divergence(target_BTS, scores_BTS, mask_BTS)
        out_BHTV = mha(q_BHTK, k_BHTK, v_BHTV, mask_BTS, self.scale)
        return self.o_proj(out_BHTV.transpose(1, 2).flatten(2)), kl_BT

    def decode(self, x_BTD: Tensor, layout: Layout, cache: CacheView) -> Tensor:
        """Absorbed MQA form: T new positions per row over the cached latents."""
        c = self.config
        q_latent_BTR, q_nope_BTHN, q_rope_BTHP = self._queries(x_BTD, layout)
        cache.write(self.layer, torch.cat(self._latents(x_BTD, layout), -1), self.indexer.keys(x_BTD, layout))
        keys_BSC, mask_BTS = self._visible_keys(x_BTD, q_latent_BTR, layout, cache)
        w_HXR = self.kv_b_proj.weight.view(c.num_attention_heads, -1, c.kv_lora_rank)
        w_uk_HNR, w_uv_HVR = w_HXR.split((c.qk_nope_head_dim, c.v_head_dim), 1)
        q_BTHC = torch.cat((torch.einsum("bthn,hnr->bthr", q_nope_BTHN, w_uk_HNR), q_rope_BTHP), -1)
        attended_BTHR = mqa_absorbed(q_BTHC, keys_BSC, c.kv_lora_rank, mask_BTS, self.scale)
        return self.o_proj(torch.einsum("bthr,hvr->bthv", attended_BTHR, w_uv_HVR).flatten(2))

    def _visible_keys(
        self, x_BTD: Tensor, q_latent_BTR: Tensor, layout: Layout, cache: CacheView
    ) -> tuple[Tensor, Tensor]:
        """Cached keys and the mask over them; a single new token reads only what the indexer selected."""
        mask_BTS, topk = layout.allowed_BTS, self.config.index_topk
        assert mask_BTS is not None
        if self.window:  # in the cache, key s stands at position s
            mask_BTS = self._windowed(layout, torch.arange(mask_BTS.shape[-1], device=mask_BTS.device)[None])
        if not layout.sparse or mask_BTS.shape[-1] <= topk:
            return cache.keys(self.layer), mask_BTS
        scores_BTS = self.indexer.scores(x_BTD, q_latent_BTR, cache.indexer_keys(self.layer), layout)
        if mask_BTS.shape[1] > 1:
            return cache.keys(self.layer), select_topk(scores_BTS, mask_BTS, topk)
        positions_BK, chosen_BK = selected_positions(scores_BTS[:, 0], mask_BTS[:, 0], topk)
        return cache.selected_keys(self.layer, positions_BK), chosen_BK[:, None]

    def _windowed(self, layout: Layout, positions_BS: Tensor) -> Tensor:
        """The layout's mask, narrowed to the layer's window: position of the query - position of the key < window."""
        assert layout.allowed_BTS is not None, "a window needs the visibility mask"
        return layout.allowed_BTS & (layout.positions_BT.unsqueeze(2) - positions_BS.unsqueeze(1) < self.window)

    def _queries(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        c, (B, T, _) = self.config, x_BTD.shape
        q_latent_BTR = self.q_a_layernorm(self.q_a_proj(x_BTD))
        q_BTHK = self.q_b_proj(q_latent_BTR).view(B, T, c.num_attention_heads, c.qk_head_dim)
        q_nope, q_rope = q_BTHK.split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        return q_latent_BTR, q_nope, rotate(q_rope, layout.cos_BTP, layout.sin_BTP)

    def _latents(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        c = self.config
        latent, k_rope = self.kv_a_proj_with_mqa(x_BTD).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
        k_rope_BTP = rotate(k_rope.unsqueeze(2), layout.cos_BTP, layout.sin_BTP).squeeze(2)
        return self.kv_a_layernorm(latent), k_rope_BTP

    def _expand(self, latent_BTR: Tensor, k_rope_BTP: Tensor) -> tuple[Tensor, Tensor]:
        c, (B, T, _) = self.config, latent_BTR.shape
        kv_BTHX = self.kv_b_proj(latent_BTR).view(B, T, c.num_attention_heads, -1)
        k_nope, v_BTHV = kv_BTHX.split((c.qk_nope_head_dim, c.v_head_dim), -1)
        k_rope_BTHP = k_rope_BTP.unsqueeze(2).expand(-1, -1, c.num_attention_heads, -1)
        return torch.cat((k_nope, k_rope_BTHP), -1).transpose(1, 2), v_BTHV.transpose(1, 2)


def indexer_divergence(target_BTS: Tensor, scores_BTS: Tensor, mask_BTS: Tensor) -> Tensor:
    """KL(p || softmax(I)) per query over the visible (dense warm-up) or selected (sparse stage) keys, float32 [B, T].

    p is 0 outside the mask and sums to 1 inside, so KL = sum p log p - sum p I + log sum exp I.
    """
    negentropy_BT = torch.special.xlogy(target_BTS, target_BTS).sum(-1)
    normaliser_BT = scores_BTS.masked_fill(~mask_BTS, torch.finfo(torch.float32).min).logsumexp(-1)
    return negentropy_BT - (target_BTS * scores_BTS).sum(-1) + normaliser_BT
