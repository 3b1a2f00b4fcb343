"""Matrix products in tiles of a fixed number of rows: a row's result does not depend on how many others there are. Legend: N rows,
K inner dims, O outer dims, H heads.

Why that is so, and what else it takes, is in README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 16
"""Rows of a tile. A power of two, so that every tile begins at the same alignment."""


def in_tiles(x_NK: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """`compute` of tiles [ROWS, K] of x, laid end to end again, [N, ...]. The last tile is filled up with zeros."""
    N = x_NK.shape[0]
    padded = F.pad(x_NK, (0, 0, 0, -N % ROWS)).contiguous()
    parts = [compute(tile) for tile in padded.split(ROWS)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[:N]


def rows_times(x: Tensor, w_KO: Tensor) -> Tensor:
    """x @ w for x [..., K], [..., O]."""
    return in_tiles(x.reshape(-1, x.shape[-1]), lambda tile: tile @ w_KO).view(*x.shape[:-1], w_KO.shape[-1])


def heads_times(x_NHK: Tensor, w_HKO: Tensor) -> Tensor:
    """Every head's rows times its own matrix, [N, H, O]."""
    N, H, K = x_NHK.shape

    def compute(tile: Tensor) -> Tensor:
        return torch.bmm(tile.view(ROWS, H, K).transpose(0, 1), w_HKO).transpose(0, 1)

    return in_tiles(x_NHK.reshape(N, H * K), compute)
