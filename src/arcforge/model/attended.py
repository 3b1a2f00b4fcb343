"""What every kind of attention gives back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Selection = list[tuple[Tensor, Tensor]]
"""What an indexer chose, per chunk of queries: (mask [B, T, S],) * 2 or (positions [B, T, K], chosen [B, T, K])."""


@dataclass
class Attended:
    """out_BTD; kl_BT: the indexer's divergence per query, float32, or None; selection: for layers that share it."""

    out_BTD: Tensor
    kl_BT: Tensor | None = None
    selection: Selection | None = None
