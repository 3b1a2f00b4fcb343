"""What the trainer asks of a model, and GLM-5's answer. Legend: B rows, T positions, D hidden, N masked tokens of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from arcforge.core.documents import PADDING
from arcforge.core.matrix import MatrixSpec
from arcforge.data.packing import PackedRows
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa


class Scored(NamedTuple):
    """logprobs_N: float32, with gradient, row by row. auxiliary: a loss of the model's own, summed over the tokens of the
    rows (padding apart), or None; the trainer divides it by the step's tokens."""

    logprobs_N: Tensor
    auxiliary: Tensor | None = None


class PolicyModel(Protocol):
    """module: the network; its parameters that require a gradient train. specs: how each is optimised, by name.

    packs: whether rows may hold several documents, and a prefix that they share; otherwise one document a row. topk: most
    positions that a token attends to; None where attention leaves none out.
    """

    module: Any  # an nn.Module; callers that made it know its class
    specs: Mapping[str, MatrixSpec]
    packs: bool
    topk: int | None

    def score(self, rows: PackedRows) -> Scored:
        """Log-probs of the tokens in `loss_mask`, each given what its own document has before it."""
        ...

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder. Every file appears whole or not at all; UserError when that fails."""
        ...


class GlmPolicyModel:
    """GLM-5's backbone under sparse attention with deterministic top-k. The indexers are frozen (GLM-5 report, section 3.2)
    or train by their own loss; the MTP layer and the router's bias never move."""

    packs = True

    def __init__(self, model: GlmMoeDsa, freeze_indexer: bool = True) -> None:
        self.module = model.eval()
        self.specs: Mapping[str, MatrixSpec] = matrix_specs(model)
        self.topk: int | None = model.config.index_topk
        self._indexer_loss = not freeze_indexer
        groups = {"trunk"} if freeze_indexer else {"trunk", "indexer"}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.specs[name].group in groups)

    def score(self, rows: PackedRows) -> Scored:
        device = self.module.lm_head.weight.device
        ids_BT, documents_BT, positions_BT = integers(rows, device)
        mask_BT = torch.from_numpy(rows.loss_mask).to(device)
        layout = self.module.layout(documents_BT, True, self._indexer_loss, positions_BT)
        features = self.module(ids_BT, layout)
        logprobs_N = self.module.token_logprobs(features.hidden_BTD[before(mask_BT)], ids_BT[mask_BT])
        kl_BT = features.indexer_kl_BT
        return Scored(logprobs_N, None if kl_BT is None else kl_BT[documents_BT != PADDING].sum())

    def save(self, folder: Path) -> None:
        save_checkpoint(self.module, folder)


def integers(rows: PackedRows, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """ids, document ids and positions as int64 [B, T]."""
    ids_BT, documents_BT, positions_BT = (
        torch.from_numpy(array.astype(np.int64)).to(device) for array in (rows.ids, rows.document_ids, rows.positions)
    )
    return ids_BT, documents_BT, positions_BT


def before(mask_BT: Tensor) -> Tensor:
    """The positions that predict the masked ones: one earlier."""
    before_BT = torch.zeros_like(mask_BT)
    before_BT[:, :-1] = mask_BT[:, 1:]
    return before_BT
