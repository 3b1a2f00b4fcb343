"""config.json of a `glm_moe_dsa` folder: written so that transformers and vLLM read the same model, and read so that nothing
in it is ignored: a key means something here, is known to mean nothing, or is refused."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from arcforge.core.config import build
from arcforge.core.errors import UserError
from arcforge.model.config import ModelConfig
from arcforge.model.fp8 import BLOCK

MODEL_TYPE = "glm_moe_dsa"
DEFAULT_OFFSET = 2
"""index_skip_topk_offset where a config leaves it out (transformers and vLLM agree)."""
FIXED: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "indexer_rope_interleave": True,
    "rope_interleave": True,
    "rope_scaling": None,
    "index_topk_pattern": None,
    "attention_dropout": 0.0,
}
"""Values that the architecture has; another one is refused."""
WITHOUT_MEANING = {
    "_name_or_path", "architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "ep_size",
    "head_dim", "id2label", "index_share_for_mtp_iteration", "initializer_range", "is_encoder_decoder", "label2id",
    "model_type", "moe_layer_freq", "moe_router_dtype", "output_attentions", "output_hidden_states", "output_router_logits",
    "pad_token_id", "pretraining_tp", "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
"""Keys that change no number here: bookkeeping, training defaults, and head_dim, which published configs give misleadingly.
index_share_for_mtp_iteration saves work while drafting: choosing anew at each draft step is what it approximates."""
VARIANT_KEYS = ("attention_types", "sliding_window", "gqa_key_value_heads")
"""Fields of ModelConfig that no `glm_moe_dsa` folder holds."""
READ = {
    *set(ModelConfig.model_fields).difference(VARIANT_KEYS), "index_skip_topk_offset", "index_topk_freq", "layer_types", "mlp_layer_types",
    "num_key_value_heads", "qk_head_dim", "quantization_config", "rope_parameters",
}  # fmt: skip


def hf_config(config: ModelConfig, control: dict[str, Any]) -> dict[str, Any]:
    """The config.json dictionary; `control` holds bos/eos/pad token ids. UserError for a model whose layers differ from
    those of `glm_moe_dsa`, which other tools would misread."""
    data = config.model_dump(exclude=set(VARIANT_KEYS))
    refuse_variants(config)
    theta = data.pop("rope_theta")
    freq, offset = share_pattern(config)
    return {
        **data,
        **{key: FIXED[key] for key in ("attention_bias", "mlp_bias", "tie_word_embeddings")},
        **control,
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": MODEL_TYPE,
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


def refuse_variants(config: ModelConfig, where: str = "") -> None:
    """UserError where a layer's attention is not full; it begins with `where`."""
    for other in sorted(set(config.attention_types) - {"full"}):
        raise UserError(f"{where}attention_types: a glm_moe_dsa checkpoint cannot hold {other} layers")


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
    """Read a checkpoint's config.json. UserError for another model type, an unknown key or a value that is not supported."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; a checkpoint folder holds config.json") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if data.get("model_type") != MODEL_TYPE:
        raise UserError(f"{path}: model_type is {data.get('model_type')!r}; only {MODEL_TYPE} is supported")
    _refuse(data, path)
    rope = data.get("rope_parameters") or {"rope_theta": data.get("rope_theta", 10000.0)}
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{path}: rope_type {rope['rope_type']!r} is not supported")
    known = {name: data[name] for name in READ & ModelConfig.model_fields.keys() if name in data}
    types = _indexer_types(data, path)
    known["indexer_types"] = types if "shared" in types else []
    config = build(ModelConfig, {**known, "rope_theta": rope["rope_theta"]}, str(path))
    _agree(data, config, path)
    return config


def _refuse(data: dict[str, Any], path: Path) -> None:
    for key, value in data.items():
        if key in FIXED:
            if value != FIXED[key]:
                raise UserError(f"{path}: {key}={value!r} is not supported; this architecture has {FIXED[key]!r}")
        elif key not in READ | WITHOUT_MEANING:
            near = difflib.get_close_matches(key, sorted(READ), n=1, cutoff=0.0)[0]
            raise UserError(f"{path}: unknown key {key}; the nearest known one is {near}")
    quantisation = data.get("quantization_config")
    if quantisation is not None:
        kind, block = quantisation.get("quant_method"), quantisation.get("weight_block_size")
        if kind != "fp8" or list(block or []) != [BLOCK, BLOCK]:
            raise UserError(
                f"{path}: quantization_config {kind!r} in blocks {block} is not supported; FP8 in 128x128 is"
            )


def _agree(data: dict[str, Any], config: ModelConfig, path: Path) -> None:
    """Keys that repeat what others say must say the same."""
    layers = config.num_hidden_layers
    repeated = {
        "num_key_value_heads": config.num_attention_heads,
        "qk_head_dim": config.qk_head_dim,
        "mlp_layer_types": ["sparse" if config.is_sparse_mlp(i) else "dense" for i in range(layers)],
        "layer_types": ["indexed_attention"] * layers,
    }
    for key, value in repeated.items():
        if data.get(key) is not None and data[key] != value:
            raise UserError(f"{path}: {key} is {data[key]!r}, but the other keys describe {value!r}")
