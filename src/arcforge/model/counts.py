"""Parameter, FLOP and memory counts of a configuration, from arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

from arcforge.model.config import ModelConfig
from arcforge.model.gdn import TAPS


@dataclass(frozen=True)
class Counts:
    """total: every stored element. active: per token of the trunk, without embeddings and head. mtp: the MTP layer's share of
    the total. biases: the routers', which are buffers; mtp_active: what a draft of one token adds."""

    total: int
    active: int
    mtp: int
    biases: int
    mtp_active: int

    @property
    def trunk(self) -> int:
        """Parameters without MTP and without the routers' biases: what transformers counts."""
        return self.total - self.mtp - self.biases


def count(config: ModelConfig) -> Counts:
    layers = range(config.num_hidden_layers)
    attention = sum(_attention(config, layer) for layer in layers) + config.hidden_size
    sparse, sparse_active = _experts(config)
    sparse_layers = sum(config.is_sparse_mlp(layer) for layer in layers)
    norms = 2 * config.hidden_size
    dense = (len(layers) - sparse_layers) * (3 * config.hidden_size * config.intermediate_size + norms)
    extra = 2 * config.hidden_size**2 + 3 * config.hidden_size + norms + _attention(config, len(layers))
    drafts = config.num_nextn_predict_layers
    total = (
        2 * config.vocab_size * config.hidden_size
        + attention
        + dense
        + sparse_layers * (sparse + norms)
        + drafts * (sparse + extra)
    )
    active = attention + dense + sparse_layers * (sparse_active + norms) - config.hidden_size
    biases = sparse_layers * config.n_routed_experts
    return Counts(total, active, drafts * (sparse + extra), biases, drafts * (sparse_active + extra))


def training_flops_per_token(config: ModelConfig, length: int, mtp_steps: float = 0.0) -> float:
    """Forward and backward FLOPs of one token at a context of `length`: 6 per active weight, plus attention."""
    counts = count(config)
    head = config.vocab_size * config.hidden_size
    weights = counts.active + head + mtp_steps * (counts.mtp_active + head)
    pairs = length / 2
    per_pair = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    return 6 * weights + 6 * pairs * per_pair * (config.num_hidden_layers + mtp_steps)


def forward_flops_per_token(config: ModelConfig, length: int) -> float:
    """FLOPs of one generated token at a context of `length`: 2 per active weight and head, the indexers' scores over the whole
    context, absorbed attention over the selected keys."""
    weights = count(config).active + config.vocab_size * config.hidden_size
    layers = config.num_hidden_layers
    indexers = sum(config.has_indexer(layer) for layer in range(layers))
    scores = 2 * config.index_n_heads * config.index_head_dim * length
    read = min(length, config.index_topk)
    attended = 2 * config.num_attention_heads * (2 * config.kv_lora_rank + config.qk_rope_head_dim) * read
    return 2.0 * weights + indexers * scores + layers * attended


def cache_bytes_per_token(config: ModelConfig, element: int = 2) -> int:
    """Latent and rope key of every layer, and the indexer's key where a layer has one; MTP layer not counted."""
    indexers = sum(config.has_indexer(layer) for layer in range(config.num_hidden_layers))
    latents = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
    return element * (latents + indexers * config.index_head_dim)


def _attention(c: ModelConfig, layer: int) -> int:
    H, D = c.num_attention_heads, c.hidden_size
    keys, values, kind = H * c.qk_head_dim, H * c.v_head_dim, c.attention_type(layer)
    if kind == "gqa":
        return D * (keys + values) + c.gqa_key_value_heads * D * (c.qk_head_dim + c.v_head_dim)
    if kind == "gdn":
        channels = 2 * keys + values
        return D * (channels + 2 * values + 2 * H) + TAPS * channels + 2 * H + c.v_head_dim
    query = D * c.q_lora_rank + c.q_lora_rank + c.q_lora_rank * keys
    latent = D * (c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank
    up = c.kv_lora_rank * H * (c.qk_nope_head_dim + c.v_head_dim) + values * D
    return query + latent + up + (_indexer(c) if c.has_indexer(layer) else 0)


def _indexer(c: ModelConfig) -> int:
    queries = c.q_lora_rank * c.index_n_heads * c.index_head_dim
    keys = c.hidden_size * c.index_head_dim + 2 * c.index_head_dim
    return queries + keys + c.hidden_size * c.index_n_heads


def _experts(c: ModelConfig) -> tuple[int, int]:
    """Stored and per token, of one layer, its router included."""
    expert = 3 * c.hidden_size * c.moe_intermediate_size
    common = c.n_routed_experts * (c.hidden_size + 1) + c.n_shared_experts * expert
    return common + c.n_routed_experts * expert, common + c.num_experts_per_tok * expert
