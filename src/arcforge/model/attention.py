"""Multi-head latent attention. Legend: B rows, T queries, S keys, K selected keys, H heads, D hidden, R latent rank, C = R + rope.

GLM-5 report, section 2.1 (MLA-256, DSA); DeepSeek-V3.2 report, section 2.1 (indexer). One set of weights, two forms:
MHA for training, absorbed MQA over latents for generation and wherever a query reads few of many keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from arcforge.kernels.attention.gathered import gathered_distribution, gathered_mqa
from arcforge.kernels.attention.masked import masked_mha
from arcforge.kernels.attention.naive import as_bias, attention_distribution, mqa_absorbed, mqa_alone
from arcforge.kernels.row_tiles.naive import heads_times
from arcforge.kernels.selection.naive import index_scores_alone, select_topk, selected_positions
from arcforge.model.attended import Attended, Selection
from arcforge.model.cache import CacheView
from arcforge.model.config import ModelConfig
from arcforge.model.indexer import Index, Indexer, indexer_divergence
from arcforge.model.layers import Alone, Layout, Linear, RMSNorm, rotate
from arcforge.model.recompute import computed_again

GATHER_FROM = 2048
GATHER_RATIO = 16
"""Gathering the selected keys pays from this length on, where it is this many times top-k (benchmarks/attention.py)."""


class MLA(Alone):
    """Attention over compressed latents. `layer` names its place in the cache. A layer whose indexer type is "shared" has no
    indexer and reads what the layer before it read (IndexShare, GLM-5.2)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        H, D = config.num_attention_heads, config.hidden_size
        self.q_a_proj = Linear(D, config.q_lora_rank)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, config.latent_norm_eps)
        self.q_b_proj = Linear(config.q_lora_rank, H * config.qk_head_dim)
        self.kv_a_proj_with_mqa = Linear(D, config.kv_lora_rank + config.qk_rope_head_dim)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, config.latent_norm_eps)
        self.kv_b_proj = Linear(config.kv_lora_rank, H * (config.qk_nope_head_dim + config.v_head_dim))
        self.o_proj = Linear(H * config.v_head_dim, D)
        self.indexer = Indexer(config) if config.has_indexer(layer) else None
        self.scale = config.qk_head_dim**-0.5
        self.window = config.sliding_window if config.attention_type(layer) == "window" else 0

    def forward(self, x_BTD: Tensor, layout: Layout, selection: Selection | None = None) -> Attended:
        """Over the batch's own rows. selection: of the layer before, read by a shared layer."""
        if layout.sparse and self._gathers(layout):
            return self._forward_gathered(x_BTD, layout, selection)
        q_latent_BTR, q_nope, q_rope_BTHP = self._queries(x_BTD, layout)
        q_BHTK = torch.cat((q_nope.transpose(1, 2), q_rope_BTHP.transpose(1, 2)), -1)
        latents = self._latents(x_BTD, layout)
        k_BHSK, v_BHSV = self._expand(*latents)
        index = self._index(x_BTD, q_latent_BTR, layout)
        masks, divergences, chosen = [], [], []
        for number, (start, end) in enumerate(layout.chunks()):
            q, k = q_BHTK[:, :, start:end], k_BHSK[:, :, :end]
            mask, scores = layout.visible(start, end, self.window), None
            if index is not None:
                with torch.set_grad_enabled(layout.indexer_loss and layout.fits and torch.is_grad_enabled()):
                    scores = index.scores(start, end, causal=True)
            if layout.sparse:
                mask = (
                    select_topk(scores.detach(), mask, self.config.index_topk)
                    if scores is not None
                    else _mask(selection, number)
                )
                chosen.append((mask, mask))
            if layout.indexer_loss and index is not None:
                divergences.append(self._divergence(index, layout, start, end, q, k, mask, scores))
            first = layout.first_key(start, self.window)
            masks.append((first, mask[..., first:]))
        # Keys and values of all heads are H (K + V) numbers per token, their latents, which are kept anyway, R + rope.
        kept = tuple(part.detach() for part in latents)
        again = lambda: dict(zip("kv", self._expand(*kept), strict=True))  # noqa: E731
        with computed_again({"k": k_BHSK, "v": v_BHSV}, again):
            out_BHTV = masked_mha(q_BHTK, k_BHSK, v_BHSV, masks, self.scale)
        return Attended(
            self.o_proj(out_BHTV.transpose(1, 2).flatten(2)),
            torch.cat(divergences, 1) if divergences else None,
            chosen or selection,
        )

    def _divergence(
        self,
        index: Index,
        layout: Layout,
        start: int,
        end: int,
        q: Tensor,
        k: Tensor,
        mask: Tensor,
        scores: Tensor | None,
    ) -> Tensor:
        """[B, end - start]. Where not all scores fit the budget at once, the backward pass computes a chunk's again."""

        def divergence(scores_BTS: Tensor) -> Tensor:
            target_BTS = attention_distribution(q, k, mask, self.scale, first=start)
            return indexer_divergence(target_BTS, scores_BTS, mask)

        if layout.fits and scores is not None:
            return divergence(scores)

        def again(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
            return divergence(Index(queries, weights, keys).scores(start, end, causal=True))

        return checkpoint(again, index.q_BTJD, index.weights_BTJ, index.k_BSD, use_reentrant=False)  # type: ignore[return-value]

    def _gathers(self, layout: Layout) -> bool:
        T, topk = layout.positions_BT.shape[1], self.config.index_topk
        return max(GATHER_FROM, GATHER_RATIO * topk) <= T

    def _forward_gathered(self, x_BTD: Tensor, layout: Layout, selection: Selection | None) -> Attended:
        """The absorbed form over the selected keys alone: work grows with T * top-k, but for the indexer's scores."""
        q_latent_BTR, q_nope, q_rope = self._queries(x_BTD, layout)
        keys_BSC = torch.cat(self._latents(x_BTD, layout), -1)
        q_BTHC = self._absorbed(q_nope, q_rope)
        index = self._index(x_BTD, q_latent_BTR, layout)
        if index is not None:
            selection = [self._positions(index, layout, start, end) for start, end in layout.chunks()]
        assert selection is not None, "a shared layer needs the selection of the layer before"
        positions_BTK, chosen_BTK = (torch.cat(parts, 1) for parts in zip(*selection, strict=True))
        kl_BT = None
        if layout.indexer_loss and index is not None:
            kl_BT = self._gathered_divergence(index, layout, q_BTHC.detach(), keys_BSC.detach(), selection)
        rank, q_latent = self.config.kv_lora_rank, q_latent_BTR.detach()
        again = lambda: {"q": self._absorbed(*self._heads(q_latent, layout))}  # noqa: E731
        with computed_again({"q": q_BTHC}, again):
            attended_BTHR = gathered_mqa(q_BTHC, keys_BSC, positions_BTK, chosen_BTK, rank, self.scale)
        return Attended(self._out(attended_BTHR), kl_BT, selection)

    @torch.no_grad()
    def _positions(self, index: Index, layout: Layout, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Selected keys of a chunk, padded to top-k so that chunks can stand beside each other."""
        mask_BTS, topk = layout.visible(start, end, self.window), self.config.index_topk
        positions, chosen = selected_positions(index.scores(start, end, causal=True), mask_BTS, topk)
        missing = topk - positions.shape[-1]
        pad = torch.nn.functional.pad
        return pad(positions, (0, missing)), pad(chosen, (0, missing))

    def _gathered_divergence(
        self, index: Index, layout: Layout, q_BTHC: Tensor, keys_BSC: Tensor, selection: Selection
    ) -> Tensor:
        """KL over the selected keys; chunk by chunk, computed again for the backward pass."""
        parts = []
        for (start, end), (positions, chosen) in zip(layout.chunks(), selection, strict=True):

            def divergence(queries, weights, keys, start=start, end=end, positions=positions, chosen=chosen):
                target = gathered_distribution(q_BTHC[:, start:end], keys_BSC, positions, chosen, self.scale)
                scores = Index(queries, weights, keys).scores_at(start, end, positions)
                return indexer_divergence(target.masked_fill(~chosen, 0.0), scores, chosen)

            parts.append(checkpoint(divergence, index.q_BTJD, index.weights_BTJ, index.k_BSD, use_reentrant=False))
        return torch.cat(parts, 1)

    def _index(self, x_BTD: Tensor, q_latent_BTR: Tensor, layout: Layout) -> Index | None:
        """Detached from the trunk; differentiable in the indexer's weights where its loss is wanted."""
        if self.indexer is None or not (layout.sparse or layout.indexer_loss):
            return None
        x_free, q_free = x_BTD.detach(), q_latent_BTR.detach()
        with torch.set_grad_enabled(layout.indexer_loss and torch.is_grad_enabled()):
            return Index(*self.indexer.queries(x_free, q_free, layout), self.indexer.keys(x_free, layout))

    def decode(
        self, x_BTD: Tensor, layout: Layout, cache: CacheView, selection: Selection | None = None
    ) -> tuple[Tensor, Selection | None]:
        """T new positions per row over the cached latents; also what was selected, None where a query sees no more than top-k."""
        q_latent_BTR, q_nope, q_rope = self._queries(x_BTD, layout)
        index_keys = self.indexer.keys(x_BTD, layout) if self.indexer is not None else None
        latents = self._latents(x_BTD, layout)
        cache.write(self.layer, torch.cat(latents, -1), index_keys)
        selects, queries = layout.sparse and layout.span > self.config.index_topk, None
        if self.indexer is not None and selects:
            queries = self.indexer.queries(x_BTD, q_latent_BTR, layout)
        if not self.alone and not selects and layout.starts_rows and self._expanding_pays:
            return self._prefilled(q_nope, q_rope, latents, layout), selection
        q_BTHC = self._absorbed(q_nope, q_rope)
        if self.alone:
            attended_BTHR, selection = self._attend_alone(q_BTHC, queries, layout, cache, selection)
        elif x_BTD.shape[1] == 1:
            attended_BTHR, selection = self._attend_one(q_BTHC, queries, layout, cache, selection)
        else:
            attended_BTHR, selection = self._attend_many(q_BTHC, queries, layout, cache, selection)
        return self._out(attended_BTHR), selection

    @property
    def _expanding_pays(self) -> bool:
        """Whether the MHA form of whole rows takes less than half of the absorbed form's multiplications: wide latents."""
        c = self.config
        return 2 * (c.qk_head_dim + c.v_head_dim) < 2 * c.kv_lora_rank + c.qk_rope_head_dim

    def _prefilled(self, q_nope: Tensor, q_rope: Tensor, latents: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
        """MHA form of rows that begin here."""
        q_BHTK = torch.cat((q_nope.transpose(1, 2), q_rope.transpose(1, 2)), -1)
        T = q_BHTK.shape[2]
        masks = [(0, layout.visible(start, end, self.window)[..., :T]) for start, end in layout.chunks()]
        out_BHTV = masked_mha(q_BHTK, *self._expand(*latents), masks, self.scale)
        return self.o_proj(out_BHTV.transpose(1, 2).flatten(2))

    def _attend_one(
        self,
        q_BTHC: Tensor,
        queries: tuple[Tensor, Tensor] | None,
        layout: Layout,
        cache: CacheView,
        selection: Selection | None,
    ) -> tuple[Tensor, Selection | None]:
        """Attended latents [B, 1, H, R] of one query per row, the keys read where they lie."""
        rank, last_B, q_BHC = self.config.kv_lora_rank, layout.positions_BT[:, 0], q_BTHC[:, 0]
        if not layout.sparse or layout.span <= self.config.index_topk:
            first_B = (last_B - (self.window - 1)).clamp(min=0) if self.window else torch.zeros_like(last_B)
            attended_BHR = cache.attended(self.layer, q_BHC, first_B, last_B, rank, self.scale)
            return attended_BHR.unsqueeze(1), selection
        if queries is not None:
            scores_BTS = Index(*queries, cache.indexer_keys(self.layer)).scores(0, 1, causal=False)
            selection = [selected_positions(scores_BTS, layout.visible(0, 1, self.window), self.config.index_topk)]
        positions_BTK, chosen_BTK = _chunk(selection, 0)
        chosen = positions_BTK[:, 0], chosen_BTK[:, 0]
        return cache.attended_at(self.layer, q_BHC, *chosen, rank, self.scale).unsqueeze(1), selection

    def _attend_many(
        self,
        q_BTHC: Tensor,
        queries: tuple[Tensor, Tensor] | None,
        layout: Layout,
        cache: CacheView,
        selection: Selection | None,
    ) -> tuple[Tensor, Selection | None]:
        """Attended latents [B, T, H, R], a chunk of queries at a time."""
        index = Index(*queries, cache.indexer_keys(self.layer)) if queries is not None else None
        keys_BSC, rank, parts = cache.keys(self.layer), self.config.kv_lora_rank, []
        chosen: Selection = []
        for number, (start, end) in enumerate(layout.chunks()):
            if layout.sparse and layout.span > self.config.index_topk:
                if index is not None:
                    scores_BTS = index.scores(start, end, causal=False)
                    mask_BTS = select_topk(scores_BTS, layout.visible(start, end, self.window), self.config.index_topk)
                    chosen.append((mask_BTS, mask_BTS))
                bias_BTS = as_bias(_mask(chosen or selection, number))
            else:
                bias_BTS = layout.bias(start, end, self.window)
            parts.append(mqa_absorbed(q_BTHC[:, start:end], keys_BSC, rank, bias_BTS, self.scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1), chosen or selection

    def _attend_alone(
        self,
        q_BTHC: Tensor,
        queries: tuple[Tensor, Tensor] | None,
        layout: Layout,
        cache: CacheView,
        selection: Selection | None,
    ) -> tuple[Tensor, Selection | None]:
        """Attended latents [B, T, H, R]: every query over as many keys as its position says, whatever the batch's longest row."""
        topk, rank, S = self.config.index_topk, self.config.kv_lora_rank, layout.span
        attended_BTHR = torch.empty_like(q_BTHC[..., :rank])
        masks_BTS = torch.zeros(*q_BTHC.shape[:2], S, dtype=torch.bool, device=q_BTHC.device)
        for row, start, end, span in layout.stretches():
            mask = layout.visible(start, end, self.window)[row : row + 1, :, :span]
            if layout.sparse and span > topk:
                if queries is not None:
                    scores = index_scores_alone(
                        queries[0][row, start:end], cache.row(self.layer, row, span)[1], queries[1][row, start:end]
                    )
                    mask = select_topk(scores.unsqueeze(0), mask, topk)
                else:
                    mask = _mask(selection, 0)[row : row + 1, start:end, :span]
            masks_BTS[row, start:end, :span] = mask
            keys_SC = cache.row(self.layer, row, span)[0]
            attended_BTHR[row, start:end] = mqa_alone(q_BTHC[row, start:end], keys_SC, rank, mask[0], self.scale)
        return attended_BTHR, [(masks_BTS, masks_BTS)]

    def _absorbed(self, q_nope_BTHN: Tensor, q_rope_BTHP: Tensor) -> Tensor:
        """Queries [absorbed | rope] over latents, [B, T, H, C]."""
        q_BTHR = self._by_head(q_nope_BTHN, self._up()[0])
        return torch.cat((q_BTHR, q_rope_BTHP), -1)

    def _out(self, attended_BTHR: Tensor) -> Tensor:
        """From attended latents to the residual stream."""
        return self.o_proj(self._by_head(attended_BTHR, self._up()[1].transpose(1, 2)).flatten(2))

    def _by_head(self, x_BTHK: Tensor, w_HKO: Tensor) -> Tensor:
        """Every head times its own matrix, [B, T, H, O]."""
        x_NHK = x_BTHK.flatten(0, 1)
        out_NHO = heads_times(x_NHK, w_HKO) if self.alone else torch.bmm(x_NHK.transpose(0, 1), w_HKO).transpose(0, 1)
        return out_NHO.unflatten(0, x_BTHK.shape[:2])

    def _up(self) -> tuple[Tensor, Tensor]:
        """W_UK [H, N, R] and W_UV [H, V, R]."""
        c = self.config
        w_HXR = self.kv_b_proj.weight.view(c.num_attention_heads, -1, c.kv_lora_rank)
        up_key, up_value = w_HXR.split((c.qk_nope_head_dim, c.v_head_dim), 1)
        return up_key, up_value

    def _queries(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        q_latent_BTR = self.q_a_layernorm(self.q_a_proj(x_BTD))
        return q_latent_BTR, *self._heads(q_latent_BTR, layout)

    def _heads(self, q_latent_BTR: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Queries of all heads: without position [B, T, H, N], and rotated [B, T, H, P]."""
        c, (B, T, _) = self.config, q_latent_BTR.shape
        q_BTHK = self.q_b_proj(q_latent_BTR).view(B, T, c.num_attention_heads, c.qk_head_dim)
        q_nope, q_rope = q_BTHK.split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        return q_nope, rotate(q_rope, layout.turns_BTP, self.alone)

    def _latents(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        c = self.config
        latent, k_rope = self.kv_a_proj_with_mqa(x_BTD).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
        k_rope_BTP = rotate(k_rope.unsqueeze(2), layout.turns_BTP, self.alone).squeeze(2)
        return self.kv_a_layernorm(latent), k_rope_BTP

    def _expand(self, latent_BTR: Tensor, k_rope_BTP: Tensor) -> tuple[Tensor, Tensor]:
        c, (B, T, _) = self.config, latent_BTR.shape
        kv_BTHX = self.kv_b_proj(latent_BTR).view(B, T, c.num_attention_heads, -1)
        k_nope, v_BHTV = kv_BTHX.transpose(1, 2).split((c.qk_nope_head_dim, c.v_head_dim), -1)
        k_rope_BHTP = k_rope_BTP.unsqueeze(1).expand(-1, c.num_attention_heads, -1, -1)
        return torch.cat((k_nope, k_rope_BHTP), -1), v_BHTV.contiguous()


def _chunk(selection: Selection | None, number: int) -> tuple[Tensor, Tensor]:
    assert selection is not None, "a shared layer needs the selection of the layer before"
    return selection[number]


def _mask(selection: Selection | None, number: int) -> Tensor:
    return _chunk(selection, number)[0]
