"""RMSNorm, interleaved RoPE, SwiGLU and the per-batch layout that every block reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcforge.core.documents import SHARED


class RMSNorm(nn.Module):
    """Root-mean-square norm with float32 statistics, cast to the input dtype before the weight (as transformers does)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass
class Layout:
    """What every block of one forward needs to know, built once per batch.

    positions_BT: int64 rope positions. allowed_BTS: bool, which keys a query may see (causal, same document), or None
    for plain causal rows. cos/sin_BTP: float32, P = qk_rope_head_dim / 2. sparse: attention reads only the indexer's
    top-k. indexer_loss: also compute KL(p || softmax(I)) for the indexer.
    """

    positions_BT: Tensor
    allowed_BTS: Tensor | None
    cos_BTP: Tensor
    sin_BTP: Tensor
    sparse: bool = False
    indexer_loss: bool = False


def rope_angles(positions_BT: Tensor, dims: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [B, T, dims / 2]."""
    inverse = 1.0 / (theta ** (torch.arange(0, dims, 2, dtype=torch.float32, device=positions_BT.device) / dims))
    angles = positions_BT[..., None].float() * inverse
    return angles.cos(), angles.sin()


def rotate(x_BTHP: Tensor, cos_BTP: Tensor, sin_BTP: Tensor) -> Tensor:
    """Interleaved RoPE on [B, T, H, P]; the result is written de-interleaved, for queries and keys alike."""
    cos, sin = cos_BTP.unsqueeze(2).to(x_BTHP.dtype), sin_BTP.unsqueeze(2).to(x_BTHP.dtype)
    even, odd = x_BTHP[..., 0::2], x_BTHP[..., 1::2]
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), -1)


def causal_mask(document_ids_BT: Tensor) -> Tensor:
    """Bool [B, T, T]: key s is visible to query t when s <= t and both belong to the same document, or s to a prefix that
    all documents of the row share (document id -2)."""
    T = document_ids_BT.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=document_ids_BT.device).tril()
    keys_B1T = document_ids_BT.unsqueeze(1)
    return ((document_ids_BT.unsqueeze(2) == keys_B1T) | (keys_B1T == SHARED)) & causal
