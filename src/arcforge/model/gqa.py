"""Grouped-query attention, the base of the report's comparison. Legend: B rows, T queries and keys, H heads, G key-value heads, K key
dims, P rope dims, V value dims, D hidden.

GLM-5 report, sections 2.1 (GQA beside MLA) and 2.1.2 (the model that the variants start from).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcforge.kernels.attention.masked import masked_mha
from arcforge.model.attended import Attended, Selection
from arcforge.model.config import ModelConfig
from arcforge.model.layers import Layout, rotate


class GQA(nn.Module):
    """Full attention with `gqa_key_value_heads` keys and values, each read by a group of heads. The last qk_rope_head_dim
    dimensions of queries and keys are rotated, as in MLA. It has whole rows only, no form for a cache of latents."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        H, G, D = config.num_attention_heads, config.gqa_key_value_heads, config.hidden_size
        self.q_proj = nn.Linear(D, H * config.qk_head_dim, bias=False)
        self.k_proj = nn.Linear(D, G * config.qk_head_dim, bias=False)
        self.v_proj = nn.Linear(D, G * config.v_head_dim, bias=False)
        self.o_proj = nn.Linear(H * config.v_head_dim, D, bias=False)

    def forward(self, x_BTD: Tensor, layout: Layout, selection: Selection | None = None) -> Attended:
        """The selection of the layer before is handed on as it is."""
        c = self.config
        group = c.num_attention_heads // c.gqa_key_value_heads
        q_BHTK = self._rotated(self.q_proj(x_BTD), layout)
        k_BHTK = self._rotated(self.k_proj(x_BTD), layout).repeat_interleave(group, 1)
        v_BHTV = self.v_proj(x_BTD).unflatten(-1, (-1, c.v_head_dim)).transpose(1, 2).repeat_interleave(group, 1)
        masks = []
        for start, end in layout.chunks():
            first = layout.first_key(start)
            masks.append((first, layout.visible(start, end)[..., first:]))
        out_BHTV = masked_mha(q_BHTK, k_BHTK, v_BHTV, masks, c.qk_head_dim**-0.5)
        return Attended(self.o_proj(out_BHTV.transpose(1, 2).flatten(2)), selection=selection)

    def _rotated(self, x_BTX: Tensor, layout: Layout) -> Tensor:
        c = self.config
        nope, rope_BTHP = x_BTX.unflatten(-1, (-1, c.qk_head_dim)).split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        rope_BTHP = rotate(rope_BTHP, layout.turns_BTP)
        return torch.cat((nope.transpose(1, 2), rope_BTHP.transpose(1, 2)), -1)
