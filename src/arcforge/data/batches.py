"""Packed rows as tensors: the one file of this room that knows torch.

Legend: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arcforge.data.packing import PackedRows


@dataclass(frozen=True, eq=False)
class Batch:
    """ids_BT: int64. document_ids_BT: int64, -1 for padding, -2 for a prefix that the row's documents share.
    loss_mask_BT: bool, whether token t may be a target. positions_BT: int64, place in the token's document."""

    ids_BT: Tensor
    document_ids_BT: Tensor
    loss_mask_BT: Tensor
    positions_BT: Tensor

    @classmethod
    def of(cls, rows: PackedRows, device: torch.device | str = "cpu") -> Batch:
        return cls(
            torch.from_numpy(rows.ids.astype(np.int64)).to(device),
            torch.from_numpy(rows.document_ids.astype(np.int64)).to(device),
            torch.from_numpy(rows.loss_mask.copy()).to(device),
            torch.from_numpy(rows.positions.astype(np.int64)).to(device),
        )

    def __getitem__(self, rows: slice) -> Batch:
        return Batch(self.ids_BT[rows], self.document_ids_BT[rows], self.loss_mask_BT[rows], self.positions_BT[rows])

    def targets(self, depth: int = 1, ignore: int = -100) -> Tensor:
        """int64 [B, T]: at place t the token t + depth, where it may be a target and is of the document of t; `ignore`
        elsewhere. depth 1 is the next token, depth k the k-th (multi-token prediction)."""
        result_BT = torch.full_like(self.ids_BT, ignore)
        ahead = slice(depth, None)
        same_BT = self.document_ids_BT[:, ahead] == self.document_ids_BT[:, :-depth]
        allowed_BT = self.loss_mask_BT[:, ahead] & same_BT
        result_BT[:, :-depth] = torch.where(allowed_BT, self.ids_BT[:, ahead], ignore)
        return result_BT
