"""A trained full-attention model with the attention of some layers exchanged (GLM-5 report, section 2.1.2). Legend: H heads, G
key-value heads, K key dims, N of them without position, V value dims, R latent rank, D hidden.

What the pre-trained projections say is carried over; what a variant adds is fresh. All variants are meant to be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arcforge.model.attention import MLA
from arcforge.model.config import AttentionType, ModelConfig
from arcforge.model.gdn import GatedDeltaNet
from arcforge.model.gqa import GQA
from arcforge.model.initialise import new_model
from arcforge.model.layers import RMSNorm
from arcforge.model.trunk import DecoderLayer, GlmMoeDsa


@torch.no_grad()
def converted(
    model: GlmMoeDsa, types: Sequence[AttentionType], window: int = 0, key_value_heads: int = 1, seed: int = 0
) -> GlmMoeDsa:
    """A new model with the attention `types` per layer, everything else as in `model`, which must be full attention.

    "window" and "simple_gdn" compute otherwise with the same weights. "gqa" averages the keys and values of each group of heads
    (GQA, arXiv 2305.13245). "gdn" starts from the full model's queries, keys, values and output; its convolutions are the
    identity, gates and decays fresh from `seed`. Indexers of exchanged layers are dropped. ValueError for numbers that do not
    fit the model.
    """
    if set(model.config.attention_types) - {"full"}:
        raise ValueError(f"only full attention can be converted, not {model.config.attention_types}")
    changes = {
        "attention_types": tuple(types), "sliding_window": window if "window" in types else 0,
        "gqa_key_value_heads": key_value_heads,
    }  # fmt: skip
    result = new_model(ModelConfig.model_validate({**model.config.model_dump(), **changes}), seed)
    ours = result.state_dict()
    result.load_state_dict({k: v for k, v in model.state_dict().items() if k in ours}, strict=False)
    for old, new in zip(model.layers, result.layers, strict=True):
        assert isinstance(old, DecoderLayer) and isinstance(new, DecoderLayer) and isinstance(old.self_attn, MLA)
        if isinstance(new.self_attn, GQA | GatedDeltaNet):
            _carry_over(new.self_attn, *whole_projections(old.self_attn, old.input_layernorm))
    return result.train(model.training)


def _carry_over(target: GQA | GatedDeltaNet, q_HKD: Tensor, k_HKD: Tensor, v_HVD: Tensor) -> None:
    """o_proj has one name everywhere and came with the state."""
    if isinstance(target, GQA):
        groups = target.config.gqa_key_value_heads
        k_HKD, v_HVD = (heads.unflatten(0, (groups, -1)).mean(1) for heads in (k_HKD, v_HVD))
    for projection, heads in ((target.q_proj, q_HKD), (target.k_proj, k_HKD), (target.v_proj, v_HVD)):
        projection.weight.copy_(heads.flatten(0, 1))


def whole_projections(attention: MLA, norm: RMSNorm) -> tuple[Tensor, Tensor, Tensor]:
    """MLA's queries [H, K, D], keys [H, K, D] and values [H, V, D] as single matrices of the layer's normed input, the rotary
    part last, not rotated.

    The norm between the two halves of a projection divides by a number that depends on the token. Here it is the one that a
    token of independent parts of equal size would have.
    """
    c = attention.config
    down_q_RD = _without_norm(attention.q_a_proj.weight, attention.q_a_layernorm, norm)
    q_HKD = (attention.q_b_proj.weight @ down_q_RD).unflatten(0, (c.num_attention_heads, -1))
    latent_RD, rope_PD = attention.kv_a_proj_with_mqa.weight.split((c.kv_lora_rank, c.qk_rope_head_dim))
    kv_HXD = (attention.kv_b_proj.weight @ _without_norm(latent_RD, attention.kv_a_layernorm, norm)).unflatten(
        0, (c.num_attention_heads, -1)
    )
    k_HND, v_HVD = kv_HXD.split((c.qk_nope_head_dim, c.v_head_dim), 1)
    return q_HKD, torch.cat((k_HND, rope_PD.expand(c.num_attention_heads, -1, -1)), 1), v_HVD


def _without_norm(down_RD: Tensor, latent_norm: RMSNorm, input_norm: RMSNorm) -> Tensor:
    expected = (down_RD * input_norm.weight).square().sum(1).mean().add(latent_norm.eps).rsqrt()
    return down_RD * expected * latent_norm.weight.unsqueeze(1)
