"""The model's configuration, with the field names of a `glm_moe_dsa` config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from arcforge.core.config import Config, build
from arcforge.core.errors import UserError

REFUSED = {"attention_bias": False, "tie_word_embeddings": False, "mlp_bias": False}
HF_LATENT_NORM_EPS = 1e-6
DEFAULT_OFFSET = 2
"""index_skip_topk_offset where a config leaves it out (transformers and vLLM agree)."""


class ModelConfig(Config):
    """Sizes of a GLM-5 model (GLM-5 report, Table 10). Defaults are the laptop recipe's.

    indexer_types: "full" for layers with an indexer of their own, "shared" for those that read what the layer before them
    read (IndexShare, GLM-5.2); empty: all full. The MTP layer always has its own.
    layer_windows: keys that each layer may look back on, itself included, 0 for all of them; empty: all layers see all.
    For comparisons (report, section 2.1.1): it is no part of `glm_moe_dsa`. The MTP layer sees all.
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
    layer_windows: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.qk_rope_head_dim % 2 or self.index_head_dim < self.qk_rope_head_dim:
            raise ValueError("qk_rope_head_dim must be even and at most index_head_dim")
        if self.n_routed_experts % self.n_group or self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError("n_routed_experts must divide into n_group groups and be at least num_experts_per_tok")
        if self.indexer_types and (len(self.indexer_types) != self.num_hidden_layers or not self.has_indexer(0)):
            raise ValueError("indexer_types needs one entry per hidden layer, and the first must be full")
        if self.layer_windows and (len(self.layer_windows) != self.num_hidden_layers or min(self.layer_windows) < 0):
            raise ValueError("layer_windows needs one number per hidden layer, 0 or the keys that it sees")
        return self

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def has_indexer(self, layer: int) -> bool:
        return layer >= len(self.indexer_types) or self.indexer_types[layer] == "full"

    def is_sparse_mlp(self, layer: int) -> bool:
        """Layers from first_k_dense_replace on, and the MTP layer, hold experts."""
        return layer >= self.first_k_dense_replace


def hf_config(config: ModelConfig, control: dict[str, Any]) -> dict[str, Any]:
    """The config.json dictionary; `control` holds bos/eos/pad token ids. UserError for a model with windows, which other
    tools would read as one without."""
    data = config.model_dump()
    if any(data.pop("layer_windows")):
        raise UserError("layer_windows: glm_moe_dsa has no windows; this model cannot be saved as a checkpoint")
    theta = data.pop("rope_theta")
    freq, offset = share_pattern(config)
    return {
        **data,
        **REFUSED,
        **control,
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "num_key_value_heads": config.num_attention_heads,
        "head_dim": config.qk_rope_head_dim,
        "hidden_act": "silu",
        "indexer_rope_interleave": True,
        "indexer_types": ["full" if config.has_indexer(i) else "shared" for i in range(config.num_hidden_layers)],
        "index_topk_freq": freq,
        "index_skip_topk_offset": offset,
        "mlp_layer_types": ["sparse" if config.is_sparse_mlp(i) else "dense" for i in range(config.num_hidden_layers)],
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_router_dtype": "float32",
        "dtype": "bfloat16",
    }


def share_pattern(config: ModelConfig) -> tuple[int, int]:
    """(index_topk_freq, index_skip_topk_offset) that describe the indexer types: vLLM reads only these, transformers only
    the types. UserError where no two numbers describe them, since tools would then read different models."""
    layers = config.num_hidden_layers
    wanted = tuple(config.has_indexer(layer) for layer in range(layers))
    for freq in range(1, layers + 2):
        for offset in (DEFAULT_OFFSET, *range(1, layers + 1)):
            if wanted == tuple(is_full(layer, freq, offset) for layer in range(layers)):
                return freq, offset
    raise UserError(
        "indexer_types: no index_topk_freq and index_skip_topk_offset describe them; choose a regular pattern"
    )


def is_full(layer: int, freq: int, offset: int) -> bool:
    """Whether layer (from 0) has an indexer of its own: 0, 1, 2, 6, 10, ... for GLM-5.2's freq 4 and offset 3."""
    return max(layer - offset + 1, 0) % freq == 0


def _indexer_types(data: dict[str, Any], path: Path) -> list[str]:
    """The types as they are written, or as the two numbers describe them."""
    layers = int(data.get("num_hidden_layers", 0))
    freq, offset = data.get("index_topk_freq") or 1, data.get("index_skip_topk_offset", DEFAULT_OFFSET)
    described = ["full" if is_full(layer, freq, offset) else "shared" for layer in range(layers)]
    types = data.get("indexer_types")
    if types is None:
        return described
    if "index_topk_freq" in data and list(types) != described:
        raise UserError(
            f"{path}: indexer_types and index_topk_freq={freq}, index_skip_topk_offset={offset} disagree; "
            "some tools read the one and some the other"
        )
    return list(types)


def read_config(folder: Path) -> ModelConfig:
    """Read a checkpoint's config.json. UserError for another model type or a feature that is not supported."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; a checkpoint folder holds config.json") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if data.get("model_type") != "glm_moe_dsa":
        raise UserError(f"{path}: model_type is {data.get('model_type')!r}; only glm_moe_dsa is supported")
    for key, supported in REFUSED.items():
        if data.get(key, supported) != supported:
            raise UserError(f"{path}: {key}={data[key]!r} is not supported")
    rope = data.get("rope_parameters") or {"rope_theta": data.get("rope_theta", 10000.0)}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{path}: rope_type {rope['rope_type']!r} is not supported")
    known = {name: data[name] for name in ModelConfig.model_fields if name in data}
    types = _indexer_types(data, path)
    known["indexer_types"] = types if "shared" in types else []
    return build(ModelConfig, {**known, "rope_theta": rope["rope_theta"]}, str(path))
