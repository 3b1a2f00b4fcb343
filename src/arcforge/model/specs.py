"""MatrixSpec of every parameter: what the optimizer may know (kind, heads, group), so that it matches no names."""

from __future__ import annotations

from torch import nn

from arcforge.core.matrix import Group, MatrixSpec
from arcforge.model.attention import MLA
from arcforge.model.indexer import Indexer
from arcforge.model.moe import Experts, Router
from arcforge.model.trunk import GlmMoeDsa, MTPLayer


def matrix_specs(model: GlmMoeDsa) -> dict[str, MatrixSpec]:
    """By parameter name. W_UQ (q_b_proj) is split per head, W_UK and W_UV (kv_b_proj) per head and per part (Muon Split)."""
    specs: dict[str, MatrixSpec] = {}
    for prefix, module in model.named_modules():
        group = _group(model, prefix)
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            vector = parameter.ndim < 2 or isinstance(module, nn.Embedding | Router)
            kind = "vector" if vector else "expert" if isinstance(module, Experts) else "matrix"
            specs[full] = MatrixSpec(kind, _head_slices(model, prefix) if kind == "matrix" else (), group)
    specs["lm_head.weight"] = MatrixSpec("vector")
    return specs


def _group(model: GlmMoeDsa, prefix: str) -> Group:
    module: nn.Module = model
    group: Group = "trunk"
    for part in filter(None, prefix.split(".")):
        module = getattr(module, part)
        if isinstance(module, Indexer):
            return "indexer"
        if isinstance(module, MTPLayer):
            group = "mtp"
    return group


def _head_slices(model: GlmMoeDsa, prefix: str) -> tuple[tuple[int, int], ...]:
    parent, _, leaf = prefix.rpartition(".")
    if leaf not in ("q_b_proj", "kv_b_proj") or not isinstance(model.get_submodule(parent), MLA):
        return ()
    c = model.config
    if leaf == "q_b_proj":
        return tuple((h * c.qk_head_dim, (h + 1) * c.qk_head_dim) for h in range(c.num_attention_heads))
    size = c.qk_nope_head_dim + c.v_head_dim
    slices = []
    for h in range(c.num_attention_heads):
        middle = h * size + c.qk_nope_head_dim
        slices += [(h * size, middle), (middle, (h + 1) * size)]
    return tuple(slices)
