"""The model's configuration, with the field names of a `glm_moe_dsa` config.json."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from arcforge.core.config import Config

HF_LATENT_NORM_EPS = 1e-6
AttentionType = Literal["full", "window", "gqa", "gdn", "simple_gdn"]
CACHED: tuple[AttentionType, ...] = ("full", "window")
"""Types that have indexers and a form for the latent cache."""


class ModelConfig(Config):
    """Sizes of a GLM-5 model (GLM-5 report, Table 10). Defaults are the laptop recipe's.

    indexer_types: "full" for layers with an indexer of their own, "shared" for those that read what the layer before them
    read (IndexShare, GLM-5.2); empty: all full. The MTP layer always has its own.
    attention_types: the attention of each layer in the report's comparison (section 2.1.2): "full" (MLA, sparse where asked),
    "window" (the same over the last sliding_window keys, their own included), "gqa" (gqa_key_value_heads key-value heads),
    "gdn", "simple_gdn"; empty: all full. None but full is a part of `glm_moe_dsa`. The MTP layer is always full.
    """

    vocab_size: int = Field(default=2048, ge=32)
    hidden_size: int = 128
    num_hidden_layers: int = 4
    first_k_dense_replace: int = 1
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    intermediate_size: int = 384
    moe_intermediate_size: int = 96
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    n_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    index_n_heads: int = 4
    index_head_dim: int = 24
    index_topk: int = 64
    num_nextn_predict_layers: int = 1
    rms_norm_eps: float = 1e-5
    latent_norm_eps: float = HF_LATENT_NORM_EPS
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    indexer_types: tuple[Literal["full", "shared"], ...] = ()
    attention_types: tuple[AttentionType, ...] = ()
    sliding_window: int = Field(default=0, ge=0)
    gqa_key_value_heads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.qk_rope_head_dim % 2 or self.index_head_dim < self.qk_rope_head_dim:
            raise ValueError("qk_rope_head_dim must be even and at most index_head_dim")
        if self.n_routed_experts % self.n_group or self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError("n_routed_experts must divide into n_group groups and be at least num_experts_per_tok")
        if self.indexer_types and (len(self.indexer_types) != self.num_hidden_layers or not self.has_indexer(0)):
            raise ValueError("indexer_types needs one entry per hidden layer, and the first must be full")
        if self.attention_types and len(self.attention_types) != self.num_hidden_layers:
            raise ValueError(f"attention_types needs one of {', '.join(get_args(AttentionType))} per hidden layer")
        if ("window" in self.attention_types) != bool(self.sliding_window):
            raise ValueError("sliding_window must be set where a layer of attention_types is a window, and only there")
        if self.num_attention_heads % self.gqa_key_value_heads:
            raise ValueError("gqa_key_value_heads must divide num_attention_heads")
        return self

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def attention_type(self, layer: int) -> AttentionType:
        return self.attention_types[layer] if layer < len(self.attention_types) else "full"

    def has_indexer(self, layer: int) -> bool:
        own = layer >= len(self.indexer_types) or self.indexer_types[layer] == "full"
        return own and self.attention_type(layer) in CACHED

    def is_sparse_mlp(self, layer: int) -> bool:
        """Layers from first_k_dense_replace on, and the MTP layer, hold experts."""
        return layer >= self.first_k_dense_replace
