"""Layers with a state of fixed size instead of keys: Gated DeltaNet and SimpleGDN. Legend: B rows, T tokens, H heads, K key dims, V
value dims, D hidden, C channels, W taps.

Gated DeltaNet (arXiv 2412.06464); GLM-5 report, section 2.1.2. Both have whole rows only, no form for a cache of latents.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcforge.core.documents import SHARED
from arcforge.kernels.select import delta_rule
from arcforge.model.attended import Attended, Selection
from arcforge.model.attention import MLA
from arcforge.model.config import ModelConfig
from arcforge.model.layers import Layout, RMSNorm

TAPS = 4
LARGEST_DECAY = 16.0
TIME_STEPS = (1e-3, 1e-1)
SHORTEST, LONGEST = 5.0, 12.0


class ShortConvolution(nn.Module):
    """silu of a causal convolution per channel over the last W tokens of the same document. It starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, TAPS))
        with torch.no_grad():
            self.weight[:, 0, -1] = 1.0

    def forward(self, x_BTC: Tensor, documents_BT: Tensor) -> Tensor:
        out_BTC = x_BTC * self.weight[:, 0, -1]
        for back in range(1, min(TAPS, x_BTC.shape[1])):
            same_BT1 = (documents_BT[:, back:] == documents_BT[:, :-back]).unsqueeze(-1)
            earlier_BTC = (x_BTC[:, :-back] * same_BT1) * self.weight[:, 0, -1 - back]
            out_BTC = out_BTC + F.pad(earlier_BTC, (0, 0, back, 0))
        return F.silu(out_BTC)


class GatedDeltaNet(nn.Module):
    """Queries, keys and values through short convolutions; unit queries and keys; b = sigmoid(.), log a = -exp(A_log)
    softplus(. + dt_bias) per head and token; the output normed per head and gated by silu. A_log and dt_bias start spread
    over the heads in the ranges of the paper's code, which draws them at random."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        H, D = config.num_attention_heads, config.hidden_size
        keys, values = H * config.qk_head_dim, H * config.v_head_dim
        self.q_proj = nn.Linear(D, keys, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, values, bias=False)
        self.q_conv, self.k_conv, self.v_conv = (ShortConvolution(size) for size in (keys, keys, values))
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.g_proj = nn.Linear(D, values, bias=False)
        self.A_log = nn.Parameter(torch.linspace(1.0, LARGEST_DECAY, H).log())
        steps_H = torch.logspace(math.log10(TIME_STEPS[0]), math.log10(TIME_STEPS[1]), H)
        self.dt_bias = nn.Parameter(steps_H + (-torch.expm1(-steps_H)).log())  # softplus gives back the steps
        self.o_norm = RMSNorm(config.v_head_dim, config.rms_norm_eps)
        self.o_proj = nn.Linear(values, D, bias=False)

    def forward(self, x_BTD: Tensor, layout: Layout, selection: Selection | None = None) -> Attended:
        """The selection of the layer before is handed on as it is."""
        documents_BT, H = documents_of(layout), self.config.num_attention_heads
        q_BTHK, k_BTHK, v_BTHV = (
            convolution(projection(x_BTD), documents_BT).unflatten(-1, (H, -1))
            for projection, convolution in (
                (self.q_proj, self.q_conv), (self.k_proj, self.k_conv), (self.v_proj, self.v_conv)
            )
        )  # fmt: skip
        log_decay_BTH = -self.A_log.float().exp() * F.softplus(self.a_proj(x_BTD).float() + self.dt_bias)
        beta_BTH = self.b_proj(x_BTD).float().sigmoid()
        q_BTHK = F.normalize(q_BTHK, dim=-1) * self.config.qk_head_dim**-0.5
        out_BTHV = delta_rule(q_BTHK, F.normalize(k_BTHK, dim=-1), v_BTHV, log_decay_BTH, beta_BTH, documents_BT)
        gate_BTHV = F.silu(self.g_proj(x_BTD)).unflatten(-1, (H, -1))
        return Attended(self.o_proj((self.o_norm(out_BTHV) * gate_BTHV).flatten(2)), selection=selection)


class SimpleGDN(MLA):
    """The delta rule on MLA's own queries, keys and values: no convolution, no gate, no new parameter.

    The report does not say what stands for a and b. Here b = 1, so that a unit key answers exactly with its last value, and
    a is a constant of the head, 1 - 2^-5 for the first to 1 - 2^-12 for the last, geometric between (the scales of retention,
    arXiv 2307.08621). Queries and keys keep their rotary part, whose products the projections were trained for, and are
    normalised to unit length. No factor is put on the output: o_proj was trained for averages of values, and a unit query
    reads a state of unit keys in that size.
    """

    def forward(self, x_BTD: Tensor, layout: Layout, selection: Selection | None = None) -> Attended:
        """The selection of the layer before is handed on as it is."""
        documents_BT = documents_of(layout)
        _, q_nope, q_rope = self._queries(x_BTD, layout)
        q_BTHK = F.normalize(torch.cat((q_nope, q_rope), -1), dim=-1)
        k_BHTK, v_BHTV = self._expand(*self._latents(x_BTD, layout))
        k_BTHK = F.normalize(k_BHTK.transpose(1, 2), dim=-1)
        H = self.config.num_attention_heads
        decay_H = torch.log1p(-(2.0 ** -torch.linspace(SHORTEST, LONGEST, H, device=x_BTD.device)))
        log_decay_BTH, beta_BTH = decay_H.expand(q_BTHK.shape[:3]), q_BTHK.new_ones(q_BTHK.shape[:3])
        out_BTHV = delta_rule(q_BTHK, k_BTHK, v_BHTV.transpose(1, 2), log_decay_BTH, beta_BTH, documents_BT)
        return Attended(self.o_proj(out_BTHV.flatten(2)), selection=selection)


def documents_of(layout: Layout) -> Tensor:
    """The rows' document ids. ValueError for rows whose documents share a prefix: a state is not handed to several."""
    assert layout.documents_BT is not None, "a cached layout reached a layer without a cache"
    if bool((layout.documents_BT == SHARED).any()):
        raise ValueError("a layer with a state cannot read rows whose documents share a prefix; pack them whole")
    return layout.documents_BT
