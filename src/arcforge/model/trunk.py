"""The whole model: embeddings, decoder layers, final norm, head, and the MTP layer. Legend: B rows, T positions, D hidden, V vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arcforge.kernels.token_logprobs.naive import token_logprobs
from arcforge.model.attended import Attended, Selection
from arcforge.model.attention import MLA
from arcforge.model.cache import BLOCK, CacheView, PagedCache
from arcforge.model.config import AttentionType, ModelConfig
from arcforge.model.gdn import GatedDeltaNet, SimpleGDN
from arcforge.model.gqa import GQA
from arcforge.model.layers import SCORE_BYTES, STRETCH, Alone, Layout, Linear, RMSNorm, RopeTable, SwiGLU, rope_turns
from arcforge.model.moe import MoE, Router

ATTENTION: dict[AttentionType, type[MLA] | type[GQA] | type[GatedDeltaNet]] = {
    "full": MLA, "window": MLA, "gqa": GQA, "gdn": GatedDeltaNet, "simple_gdn": SimpleGDN,
}  # fmt: skip


@dataclass
class Features:
    """hidden_BTD: after the final norm. balance: mean sequence-level balance loss. indexer_kl_BT: sum over layers, or None."""

    hidden_BTD: Tensor
    balance: Tensor | None = None
    indexer_kl_BT: Tensor | None = None


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = ATTENTION[config.attention_type(layer)](config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = config.is_sparse_mlp(layer)
        self.mlp = MoE(config) if sparse else SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(
        self, x_BTD: Tensor, layout: Layout, selection: Selection | None = None
    ) -> tuple[Tensor, Tensor | None, Attended]:
        """The stream after the layer, the balance loss of its experts, and what its attention tells."""
        attended = self.self_attn(self.input_layernorm(x_BTD), layout, selection)
        x_BTD = x_BTD + attended.out_BTD
        out, balance = self._mlp(x_BTD)
        return x_BTD + out, balance, attended

    def decode(
        self, x_BTD: Tensor, layout: Layout, cache: CacheView, selection: Selection | None = None
    ) -> tuple[Tensor, Selection | None]:
        assert isinstance(self.self_attn, MLA), "a cache is refused where a layer has no form for it"
        attended, selection = self.self_attn.decode(self.input_layernorm(x_BTD), layout, cache, selection)
        x_BTD = x_BTD + attended
        return x_BTD + self._mlp(x_BTD)[0], selection

    def _mlp(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        normed = self.post_attention_layernorm(x_BTD)
        return self.mlp(normed) if isinstance(self.mlp, MoE) else (self.mlp(normed), None)


class MTPLayer(DecoderLayer):
    """The multi-token-prediction layer: eh_proj([enorm(embedding) ; hnorm(hidden)]), a sparse decoder layer, a norm.

    One parameter set serves every draft step (GLM-5 report, section 2.1); embeddings and head belong to the trunk.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.num_hidden_layers)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size)
        self.shared_head_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def join(self, embedded_BTD: Tensor, hidden_BTD: Tensor) -> Tensor:
        return self.eh_proj(torch.cat((self.enorm(embedded_BTD), self.hnorm(hidden_BTD)), -1))


class GlmMoeDsa(Alone):
    """GLM-5's backbone at any size. `train()` collects balance losses and expert loads; nothing else differs.

    score_bytes: budget of a float32 [queries, keys] matrix; longer rows are taken in chunks of queries.
    """

    score_bytes = SCORE_BYTES

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.mtp = MTPLayer(config) if config.num_nextn_predict_layers else None
        self._rope = RopeTable(config.qk_rope_head_dim, config.rope_theta)

    def compute_alone(self, alone: bool = True) -> None:
        """From now on, cached decoding gives a token bit for bit the same result whatever it is batched with, and logits too.
        Slower: matrix products run in tiles, attention request by request. A model serves engines of one mode at a time."""
        for module in self.modules():
            if isinstance(module, Alone):
                module.alone = alone

    def token_logprobs(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Log-probability of each target under the head, float32 [N]."""
        return token_logprobs(hidden_ND, self.lm_head.weight, targets_N)

    def layout(
        self,
        document_ids_BT: Tensor,
        sparse: bool = False,
        indexer_loss: bool = False,
        positions_BT: Tensor | None = None,
    ) -> Layout:
        """Layout of packed training rows; documents see themselves and a prefix that the row shares (id -2).

        positions_BT: place of each token in its document; by default the place in the row.
        """
        if positions_BT is None:
            positions_BT = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device)[None]
        turns_BTP = rope_turns(positions_BT, self.config.qk_rope_head_dim, self.config.rope_theta)
        positions_BT = positions_BT.expand(document_ids_BT.shape)
        span, budget = document_ids_BT.shape[1], self.score_bytes
        return Layout(positions_BT, turns_BTP, document_ids_BT, span, sparse, indexer_loss, budget)

    def forward(self, ids_BT: Tensor, layout: Layout) -> Features:
        """ids: int64 [B, T]. Logits are `lm_head(hidden)`; the caller applies it where it needs it."""
        x_BTD = self.embed_tokens(ids_BT)
        balances, divergences, selection = [], [], None
        for layer in self.layers:
            x_BTD, balance, attended = layer(x_BTD, layout, selection)
            selection = attended.selection
            balances += [balance] if balance is not None else []
            divergences += [attended.kl_BT] if attended.kl_BT is not None else []
        return Features(
            self.norm(x_BTD),
            torch.stack(balances).mean() if balances else None,
            torch.stack(divergences).sum(0) if divergences else None,
        )

    def draft_features(self, ids_BT: Tensor, hidden_BTD: Tensor, layout: Layout) -> Features:
        """One MTP training step: ids are the next tokens' ids, hidden the previous step's (or the trunk's) output."""
        assert self.mtp is not None
        joined = self.mtp.join(self.embed_tokens(ids_BT), hidden_BTD)
        x_BTD, balance, attended = self.mtp(joined, layout)
        return Features(self.mtp.shared_head_norm(x_BTD), balance, attended.kl_BT)

    def decode(
        self, ids_BT: Tensor, layout: Layout, cache: CacheView, selections: list[Selection | None] | None = None
    ) -> Tensor:
        """Cached forward of T new tokens per row; hidden after the final norm [B, T, D]. selections: gets what every layer
        selected, None where a query sees no more than top-k keys."""
        x_BTD, selection = self.embed_tokens(ids_BT), None
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            x_BTD, selection = layer.decode(x_BTD, layout, cache, selection)
            if selections is not None:
                selections.append(selection)
        return self.norm(x_BTD)

    def draft(self, ids_BT: Tensor, hidden_BTD: Tensor, layout: Layout, cache: CacheView) -> Tensor:
        """Cached MTP step; hidden after `shared_head.norm` [B, T, D], to be recycled by the next step."""
        assert self.mtp is not None
        joined = self.mtp.join(self.embed_tokens(ids_BT), hidden_BTD)
        return self.mtp.shared_head_norm(self.mtp.decode(joined, layout, cache)[0])

    def cache_view(self, cache: PagedCache, tables_BX: Tensor, positions_BT: Tensor) -> tuple[CacheView, Layout]:
        """View and layout for `decode`/`draft`: query t of a row sees the keys at positions <= its own."""
        if self.alone:
            missing = -tables_BX.shape[1] % (STRETCH // BLOCK)
            tables_BX = torch.cat((tables_BX, tables_BX[:, -1:].expand(-1, missing)), 1)
        view = CacheView(cache, tables_BX, positions_BT)
        turns_BTP = self._rope.at(positions_BT, view.span)
        layout = Layout(positions_BT, turns_BTP, None, view.span, sparse=True, score_bytes=self.score_bytes)
        return view, layout

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]

    @torch.no_grad()
    def update_router_bias(self, rate: float) -> None:
        """Aux-loss-free balancing: raise the bias of under-used experts, lower it of over-used ones, by `rate`."""
        for router in self.routers():
            if router.load.sum() > 0:
                router.e_score_correction_bias += rate * torch.sign(router.load.mean() - router.load)
            router.load.zero_()
