"""Initial weights. Legend as in trunk.py.

Matrices are normal with variance 1 / fan_in, outputs into the residual stream scaled down by depth. With
`previous_token_heads` = n the first n attention heads of the first layer start out looking one, two, ... n tokens back: an
initialisation, not a change of the architecture; content copying (induction) then forms within the few tokens that a
laptop can afford.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from arcforge.model.attention import MLA
from arcforge.model.config import ModelConfig
from arcforge.model.moe import Experts
from arcforge.model.trunk import GlmMoeDsa

CONSTANT_SHARE = 0.5
SHARPNESS = 18.0
FAST_PAIRS = 6


@torch.no_grad()
def new_model(config: ModelConfig, seed: int, previous_token_heads: int = 0) -> GlmMoeDsa:
    """A fresh float32 model, the same for the same seed."""
    model = GlmMoeDsa(config)
    generator = torch.Generator().manual_seed(seed)
    depth_scale = (2 * (config.num_hidden_layers + 1)) ** -0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            scale = depth_scale if name.endswith(("o_proj", "down_proj")) else 1.0
            _normal(module.weight, scale * module.weight.shape[1] ** -0.5, generator)
        elif isinstance(module, nn.Embedding):
            _normal(module.weight, 1.0, generator)
        elif isinstance(module, Experts):
            _normal(module.gate_up_proj, config.hidden_size**-0.5, generator)
            _normal(module.down_proj, depth_scale * config.moe_intermediate_size**-0.5, generator)
    for router in model.routers():
        _normal(router.weight, config.hidden_size**-0.5, generator)
    model.lm_head.weight.mul_(0.5)
    _previous_token_heads(model, previous_token_heads) if previous_token_heads else None
    return model


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)


def _previous_token_heads(model: GlmMoeDsa, count: int) -> None:
    """Head h of layer 0: a constant embedding dimension feeds a query that RoPE turns towards position t - 1 - h."""
    config = model.config
    attention = model.layers[0].self_attn
    assert isinstance(attention, MLA)
    model.embed_tokens.weight[:, 0] = math.sqrt(config.hidden_size) * CONSTANT_SHARE
    latent = attention.q_a_proj.weight
    latent[0] = 0.0
    latent[0, 0] = 4.0
    latent[1:, 0] = 0.0
    k_rope = attention.kv_a_proj_with_mqa.weight[config.kv_lora_rank :]
    k_rope.mul_(0.02)
    k_rope[:, 0] = 0.0
    k_rope[0::2, 0] = 1.0
    pairs = config.qk_rope_head_dim // 2
    used = min(pairs, FAST_PAIRS)
    inverse = 1.0 / (config.rope_theta ** (torch.arange(pairs, dtype=torch.float32) / pairs))
    strength = torch.zeros(pairs)
    strength[:used] = SHARPNESS * config.qk_head_dim**0.5 / (config.q_lora_rank**0.5 * used)
    heads = attention.q_b_proj.weight.view(config.num_attention_heads, config.qk_head_dim, -1)
    for h in range(count):
        heads[h].zero_()
        heads[h, config.qk_nope_head_dim :: 2, 0] = strength * torch.cos((h + 1) * inverse)
        heads[h, config.qk_nope_head_dim + 1 :: 2, 0] = -strength * torch.sin((h + 1) * inverse)
