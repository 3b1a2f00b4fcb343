"""Routed experts on a sorted token list. Legend: N tokens, K experts per token, E experts, D hidden, I intermediate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def routed_experts(
    x_ND: Tensor, weights_NK: Tensor, experts_NK: Tensor, gate_up_EID: Tensor, down_EDI: Tensor
) -> Tensor:
    """sum_k w[n, k] * down_e(silu(gate_e x) * up_e x), [N, D]; gate_up holds gate rows first, then up rows (2I rows).

    The weight is applied after the down projection (GLM-5 checkpoints' order of operations).
    """
    N, K = experts_NK.shape
    order_NK = experts_NK.flatten().argsort(stable=True)
    token_of = order_NK // K
    counts = torch.bincount(experts_NK.flatten(), minlength=gate_up_EID.shape[0]).tolist()
    outputs = []
    for expert, rows_XD in enumerate(x_ND[token_of].split(counts)):
        if rows_XD.shape[0]:
            gate_XI, up_XI = F.linear(rows_XD, gate_up_EID[expert]).chunk(2, -1)
            outputs.append(F.linear(F.silu(gate_XI) * up_XI, down_EDI[expert]))
    scaled = torch.cat(outputs) * weights_NK.flatten()[order_NK].unsqueeze(-1).to(x_ND.dtype)
    return torch.zeros_like(x_ND).index_add(0, token_of, scaled)
