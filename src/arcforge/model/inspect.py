"""What a checkpoint folder holds, from its headers alone: no weight is loaded."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from arcforge.core.errors import UserError
from arcforge.model.config import ModelConfig, read_config
from arcforge.model.counts import count

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
CONTROL = re.compile(r"<\|[a-z_]+\|>|\[gMASK\]|</?[a-z_]+>")
"""How control tokens are spelt in a chat template."""


@dataclass(frozen=True)
class Stored:
    """One tensor as its file's header tells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def describe(checkpoint: Path) -> str:
    """Text for the terminal: sizes, parameters, tensors by group, number formats, tokenizer, control tokens.

    UserError when the folder is no checkpoint of a supported kind.
    """
    config = read_config(checkpoint)
    tensors = stored_tensors(checkpoint)
    sections = (_sizes(config), _parameters(config), _tensors(config, tensors), _files(checkpoint), _chat(checkpoint))
    return "\n\n".join(f"{title}\n{_aligned(rows)}" for title, rows in sections)


def stored_tensors(checkpoint: Path) -> list[Stored]:
    """Every tensor of the folder's safetensors files."""
    files = sorted(checkpoint.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{checkpoint}: no model*.safetensors here; a checkpoint folder holds them")
    found: list[Stored] = []
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                slices = ((name, opened.get_slice(name)) for name in opened.keys())  # noqa: SIM118 - not a mapping
                found += [Stored(name, str(s.get_dtype()), tuple(s.get_shape())) for name, s in slices]
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file}: cannot be read: {error}") from None
    return found


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
        ("total", f"{counts.total:,}"),
        ("active per token", f"{counts.active:,} (embeddings and head not counted)"),
        ("MTP", f"{counts.mtp:,}"),
    ]
    return "parameters", rows


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
