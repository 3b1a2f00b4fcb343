"""A copying circuit as the starting point of a small model: two layers of attention that already do induction.

Content copying does not form by itself in the few million tokens that a laptop can afford, and everything agentic needs
it. This is an initialisation only: every weight trains on, and the architecture is untouched. The residual stream is
divided among what the circuit needs (legend: C one constant, I identity of the token, P1/P2 what stood one and two
places before, N what is to be copied next):

    embedding    writes C and I
    layer 0      head 0 looks one place back and writes P1; head 1 two places back, P2 (C and RoPE make the offset)
    layer 1      head 0 matches its own P1 with the keys' P2 ("key = value"), head 1 its own I with the keys' P1
                 (plain induction); both write the identity of the key's token to N
    lm_head      reads N
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.model.attention import MLA
from arcforge.model.config import ModelConfig
from arcforge.model.trunk import DecoderLayer, GlmMoeDsa

CONSTANT = 0.5
OFFSET_SHARPNESS = 16.0
MATCH_SHARPNESS = 5.0
HEAD_GAIN = 0.3
FAST_PAIRS = 6
REST = 0.1


@dataclass(frozen=True)
class Parts:
    """Slices of the residual stream; `match` is the width of P1 and P2, `copy` that of N."""

    identity: slice
    one_back: slice
    two_back: slice
    following: slice
    match: int
    copy: int


def parts_of(config: ModelConfig) -> Parts:
    """UserError when the sizes leave no room."""
    hidden = config.hidden_size
    match = min(config.qk_nope_head_dim, config.q_lora_rank // 2, hidden // 6, config.v_head_dim)
    copy = min(config.v_head_dim, hidden * 2 // 7, config.kv_lora_rank - 2 * match)
    if config.num_hidden_layers < 2 or config.num_attention_heads < 2 or copy < 4 or config.qk_rope_head_dim < 4:
        raise UserError(
            "pretrain.copying_init needs two layers, two heads, and kv_lora_rank above twice qk_nope_head_dim"
        )
    identity = hidden - 1 - 2 * match - copy
    edges = [1, 1 + identity, 1 + identity + match, 1 + identity + 2 * match, hidden]
    return Parts(*(slice(a, b) for a, b in zip(edges, edges[1:], strict=False)), match=match, copy=copy)


def copying_circuit(model: GlmMoeDsa, generator: torch.Generator) -> None:
    """Overwrite the embedding, the head and the first two layers' attention; silence all other outputs at the start."""
    config, parts = model.config, parts_of(model.config)
    size = parts.identity.stop - parts.identity.start
    signature = _orthogonal(parts.match, size, generator)
    reading = _orthogonal(parts.copy, size, generator)
    for layer in [*model.layers, *([model.mtp] if model.mtp is not None else [])]:
        _silence(layer)
    embedding = model.embed_tokens.weight
    embedding[:, 0] = math.sqrt(config.hidden_size) * CONSTANT
    embedding[:, parts.identity.stop :] = 0.0
    # All tokens of one norm, so that C is the same after RMSNorm: the look-back heads would else prefer tokens of small norm.
    embedding[:, parts.identity] *= size**0.5 / embedding[:, parts.identity].norm(dim=1, keepdim=True)
    model.lm_head.weight.mul_(REST)
    model.lm_head.weight[:, parts.following] += HEAD_GAIN * embedding[:, parts.identity] @ reading.T
    first, second = (layer.self_attn for layer in list(model.layers)[:2])
    assert isinstance(first, MLA) and isinstance(second, MLA)
    _look_back(first, parts, signature)
    _match(second, parts, signature, reading)


def _look_back(attention: MLA, parts: Parts, signature: Tensor) -> None:
    """Heads 0 and 1 attend one and two places back and carry the token's signature to P1 and P2."""
    c = attention.config
    q_a, kv_a, output = attention.q_a_proj.weight, attention.kv_a_proj_with_mqa.weight, attention.o_proj.weight
    q_a[0] = 0.0
    q_a[0, 0] = 4.0
    q_a[1:, 0] = 0.0
    kv_a[: parts.match] = 0.0
    kv_a[: parts.match, parts.identity] = signature
    k_rope = kv_a[c.kv_lora_rank :]
    k_rope.mul_(0.02)
    k_rope[0::2, 0] = 1.0
    pairs = c.qk_rope_head_dim // 2
    used = min(pairs, FAST_PAIRS)
    angles = 1.0 / (c.rope_theta ** (torch.arange(pairs, dtype=torch.float32) / pairs))
    strength = torch.zeros(pairs)
    strength[:used] = OFFSET_SHARPNESS * c.qk_head_dim**0.5 / (c.q_lora_rank**0.5 * used)
    queries, values = _head_rows(attention)
    for head, target in enumerate((parts.one_back, parts.two_back)):
        queries[head] = 0.0
        queries[head, c.qk_nope_head_dim :: 2, 0] = strength * torch.cos((head + 1) * angles)
        queries[head, c.qk_nope_head_dim + 1 :: 2, 0] = -strength * torch.sin((head + 1) * angles)
        values[head, c.qk_nope_head_dim :] = 0.0
        values[head, c.qk_nope_head_dim : c.qk_nope_head_dim + parts.match, : parts.match] = torch.eye(parts.match)
        start = head * c.v_head_dim
        output[target, start : start + parts.match] = torch.eye(parts.match)


def _match(attention: MLA, parts: Parts, signature: Tensor, reading: Tensor) -> None:
    """Head 0: own P1 with the keys' P2. Head 1: own identity with the keys' P1. Both copy the key's token to N."""
    c, m = attention.config, parts.match
    q_a, kv_a, output = attention.q_a_proj.weight, attention.kv_a_proj_with_mqa.weight, attention.o_proj.weight
    q_a.mul_(REST)
    q_a[: 2 * m] = 0.0
    q_a[:m, parts.one_back] = torch.eye(m)
    q_a[m : 2 * m, parts.identity] = signature
    kv_a.mul_(REST)
    kv_a[: 2 * m + parts.copy] = 0.0
    kv_a[:m, parts.one_back] = torch.eye(m)
    kv_a[m : 2 * m, parts.two_back] = torch.eye(m)
    kv_a[2 * m : 2 * m + parts.copy, parts.identity] = reading
    queries, keys_values = _head_rows(attention)
    for head, (query, key) in enumerate(((0, m), (m, 0))):
        queries[head] = 0.0
        queries[head, :m, query : query + m] = MATCH_SHARPNESS * torch.eye(m)
        keys_values[head] = 0.0
        keys_values[head, :m, key : key + m] = torch.eye(m)
        value = c.qk_nope_head_dim
        keys_values[head, value : value + parts.copy, 2 * m : 2 * m + parts.copy] = torch.eye(parts.copy)
        start = head * c.v_head_dim
        output[parts.following, start : start + parts.copy] = torch.eye(parts.copy)


def _head_rows(attention: MLA) -> tuple[Tensor, Tensor]:
    """Views [H, qk_head_dim, q_lora] of W_UQ and [H, qk_nope + v, kv_lora] of W_UK and W_UV."""
    c = attention.config
    queries = attention.q_b_proj.weight.view(c.num_attention_heads, c.qk_head_dim, -1)
    return queries, attention.kv_b_proj.weight.view(c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim, -1)


def _silence(layer: object) -> None:
    """Zero what a layer writes to the residual stream; its gradients wake it up."""
    assert isinstance(layer, DecoderLayer)
    layer.self_attn.o_proj.weight.zero_()
    for name, parameter in layer.mlp.named_parameters():
        if "down_proj" in name:
            parameter.zero_()


def _orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows when they fit, else orthonormal columns."""
    q, _ = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=generator))
    return q.T if rows <= columns else q
