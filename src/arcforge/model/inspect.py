"""What a checkpoint folder holds, from its headers alone: no weight is loaded."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.model.checkpoint import expected_shapes, unexpected
from arcforge.model.config import ModelConfig
from arcforge.model.counts import cache_bytes_per_token, count, forward_flops_per_token
from arcforge.model.hf_config import read_config
from arcforge.model.stored import Stored, StoredTensors

GROUPS = {
    "indexer": r"\.self_attn\.indexer\.",
    "attention": r"\.self_attn\.",
    "routed experts": r"\.mlp\.experts\.",
    "shared expert": r"\.mlp\.shared_experts\.",
    "router": r"\.mlp\.gate\.",
    "dense MLP": r"\.mlp\.",
    "embeddings": r"embed_tokens",
    "head": r"^lm_head",
    "reward head": r"^score",
}
SHOWN = 5
CONTROL = re.compile(r"<\|[a-z_]+\|>|\[gMASK\]|</?[a-z_]+>")
"""How control tokens are spelt in a chat template."""


def describe(checkpoint: Path) -> str:
    """Text for the terminal: sizes, parameters, costs, tensors by group and against the config, tokenizer, control tokens.

    A folder with config.json alone tells what follows from it; nothing is allocated. UserError when the folder is no
    checkpoint of a supported kind.
    """
    config = read_config(checkpoint)
    sections = [_sizes(config), _parameters(config), _costs(config)]
    if any(checkpoint.glob("model*.safetensors")):
        stored = StoredTensors(checkpoint)
        sections += [_tensors(config, list(stored.values())), _fit(config, stored)]
    else:
        sections.append(("tensors", [("none", "no model*.safetensors here")]))
    sections += [_files(checkpoint), _chat(checkpoint)]
    return "\n\n".join(f"{title}\n{_aligned(rows)}" for title, rows in sections)


Section = tuple[str, list[tuple[str, str]]]


def _sizes(c: ModelConfig) -> Section:
    sparse = c.num_hidden_layers - c.first_k_dense_replace
    rows = [
        ("layers", f"{c.num_hidden_layers}: {c.first_k_dense_replace} dense, {sparse} sparse"),
        ("MTP layers", str(c.num_nextn_predict_layers)),
        ("hidden size", str(c.hidden_size)),
        ("attention", f"{c.num_attention_heads} heads, latent {c.kv_lora_rank}, query rank {c.q_lora_rank}"),
        ("indexer", f"{c.index_n_heads} heads of {c.index_head_dim}, top {c.index_topk}"),
        ("experts", f"{c.n_routed_experts}, {c.num_experts_per_tok} per token, {c.n_shared_experts} shared"),
        ("vocabulary", f"{c.vocab_size:,}"),
        ("positions", f"{c.max_position_embeddings:,}"),
    ]
    return "glm_moe_dsa", rows


def _parameters(config: ModelConfig) -> Section:
    counts = count(config)
    rows = [
        ("trunk", f"{counts.trunk:,}"),
        ("with router biases and MTP", f"{counts.total:,}"),
        ("MTP", f"{counts.mtp:,}"),
        ("active per token", f"{counts.active:,} (embeddings and head not counted)"),
    ]
    return "parameters", rows


def _costs(config: ModelConfig) -> Section:
    """Per token: FLOPs of generating it at a full context, and bytes of its cache in BF16."""
    lengths = [n for n in (4096, 32768, 131072) if n < config.max_position_embeddings] + [
        config.max_position_embeddings
    ]
    rows = [(f"forward FLOPs per token at {n:,}", f"{forward_flops_per_token(config, n):.3g}") for n in lengths]
    return "costs", [*rows, ("cache bytes per token, BF16", f"{cache_bytes_per_token(config):,}")]


def _fit(config: ModelConfig, stored: StoredTensors) -> Section:
    """Tensors that are missing, ill-shaped or belong to nothing."""
    shapes = expected_shapes(config)
    missing = [name for name in shapes if name not in stored]
    wrong = [
        f"{name} {stored[name].shape}, not {shape}"
        for name, shape in shapes.items()
        if name in stored and stored[name].shape != shape
    ]
    rows = [("missing", missing), ("ill-shaped", wrong), ("unexpected", unexpected(stored, shapes, config))]
    return "tensors against config.json", [(kind, _listed(found)) for kind, found in rows]


def _listed(found: list[str]) -> str:
    if not found:
        return "none"
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return f"{len(found):,}: {', '.join(found[:SHOWN])}{more}"


def _tensors(config: ModelConfig, tensors: list[Stored]) -> Section:
    """One row per group: tensors, elements, number formats. Multipliers of FP8 blocks are counted with their weights."""
    groups: dict[str, list[Stored]] = defaultdict(list)
    for tensor in tensors:
        groups[_group(config, tensor.name)].append(tensor)
    rows = [(name, _summary(members)) for name, members in sorted(groups.items())]
    return "tensors", [*rows, ("all", _summary(tensors))]


def _group(config: ModelConfig, name: str) -> str:
    if name.startswith(f"model.layers.{config.num_hidden_layers}."):
        return "MTP layer"
    return next((group for group, pattern in GROUPS.items() if re.search(pattern, name)), "norms")


def _summary(tensors: list[Stored]) -> str:
    formats = Counter[str]()
    for tensor in tensors:
        formats[tensor.dtype] += tensor.elements
    told = ", ".join(f"{dtype} {elements:,}" for dtype, elements in formats.most_common())
    return f"{len(tensors):>5} tensors   {told}"


def _files(checkpoint: Path) -> Section:
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    return "files", [(path.name, f"{path.stat().st_size:>13,} bytes") for path in files]


def _chat(checkpoint: Path) -> Section:
    """The tokenizer, and whether it has every control token that the folder's chat template writes."""
    path = checkpoint / "tokenizer.json"
    if not path.exists():
        return "tokenizer", [("missing", "no tokenizer.json here")]
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        added = [token["content"] for token in data["added_tokens"]]
        size = len({*data["model"]["vocab"], *added})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a tokenizer: {error!r}") from None
    rows = [("kind", str(data["model"].get("type"))), ("vocabulary", f"{size:,}")]
    template = checkpoint / "chat_template.jinja"
    if not template.exists():
        return "tokenizer", [*rows, ("chat template", "none")]
    written = set(CONTROL.findall(template.read_text()))
    missing = sorted(written - set(added))
    rows.append(("control tokens", f"{len(added)}: {' '.join(added)}"))
    rows.append(("chat template", f"lacks {' '.join(missing)}" if missing else "all of its control tokens are present"))
    return "tokenizer", rows


def _aligned(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)
