"""One policy update: packed samples -> log-probabilities under sparse attention -> loss -> weights (tensor half of `rl`).

The indexer is frozen, unless a recipe says otherwise, and top-k is deterministic in all RL stages (GLM-5 report, section 3.2);
the router's bias is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arcforge.core.documents import PADDING
from arcforge.core.errors import UserError
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.rl.losses import LossOutput
from arcforge.rl.samples import Batch

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], LossOutput]
"""(train [1, N], rollout [1, N], advantages or teacher [1, N], mask [1, N], weights [1, N]) -> LossOutput."""

MICRO_TOKENS = 8192
ROW_TOKENS = 640
LAST_LR = 0.1
"""RL stages decay their rate linearly to this share of it."""


@dataclass
class Update:
    """metrics: means over the step's tokens. ratios: pi_train / pi_rollout of each trained token, float32 [N]."""

    metrics: dict[str, float]
    ratios: np.ndarray


class Policy:
    """A model with its optimizer; the trunk trains, and its indexers, by their own loss, where they are not frozen."""

    def __init__(self, model: GlmMoeDsa, lr: float, freeze_indexer: bool = True) -> None:
        self.model = model.eval()
        self.specs = matrix_specs(model)
        self.freeze_indexer = freeze_indexer
        groups = {"trunk"} if freeze_indexer else {"trunk", "indexer"}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.specs[name].group in groups)
        self.optimizer = MuonAdamW(model, self.specs, OptimizerConfig(lr=lr, weight_decay=0.0))

    def update(self, batch: Batch, signal: np.ndarray, loss: Loss, lr_scale: float = 1.0) -> Update:
        """One optimizer step on all rows of the batch. signal: advantages or teacher log-probs, float32 [N, T]."""
        outputs: list[tuple[LossOutput, int]] = []
        for rows in _micro_rows(batch):
            output, count, indexer_loss = self._forward(batch, signal, rows, loss)
            if count:
                (output.loss + indexer_loss).backward()
                outputs.append((output, count))
        if not outputs:
            raise UserError("a policy update got no trained token; every rollout of the step was masked")
        norm = self.optimizer.step(lr_scale)
        metrics = _averaged(outputs)
        metrics |= {"loss": sum(float(o.loss.detach()) for o, _ in outputs), "grad_norm": norm}
        if metrics["loss"] != metrics["loss"]:
            raise UserError("the policy loss is not a number; lower the stage's lr")
        return Update(metrics, torch.cat([o.ratio_BT[0] for o, _ in outputs]).numpy())

    def _forward(self, batch: Batch, signal: np.ndarray, rows: slice, loss: Loss) -> tuple[LossOutput, int, Tensor]:
        """Trained tokens of a few rows, flattened to one row of N tokens; their log-prob is read one position earlier. Last,
        the indexers' divergence, 0 where they are frozen."""
        ids_BT = torch.from_numpy(batch.rows.ids[rows].astype(np.int64))
        documents_BT = torch.from_numpy(batch.rows.document_ids[rows].astype(np.int64))
        mask_BT = torch.from_numpy(batch.rows.loss_mask[rows])
        positions_BT = torch.from_numpy(batch.rows.positions[rows].astype(np.int64))
        layout = self.model.layout(documents_BT, True, not self.freeze_indexer, positions_BT)
        features = self.model(ids_BT, layout)
        hidden_BTD = features.hidden_BTD
        before_BT = torch.zeros_like(mask_BT)
        before_BT[:, :-1] = mask_BT[:, 1:]
        train_N = self.model.token_logprobs(hidden_BTD[before_BT], ids_BT[mask_BT])
        rollout, extra, weights = (
            torch.from_numpy(array[rows])[mask_BT][None] for array in (batch.logprobs, signal, batch.weights)
        )
        ones = torch.ones_like(rollout, dtype=torch.bool)
        kl_BT = features.indexer_kl_BT
        indexer_loss = torch.zeros(()) if kl_BT is None else kl_BT[documents_BT != PADDING].mean()
        return loss(train_N[None], rollout, extra, ones, weights), int(mask_BT.sum()), indexer_loss


def _micro_rows(batch: Batch) -> Iterator[slice]:
    size = max(1, MICRO_TOKENS // batch.rows.length)
    for start in range(0, len(batch.rows), size):
        yield slice(start, start + size)


def _averaged(outputs: list[tuple[LossOutput, int]]) -> dict[str, float]:
    total = sum(count for _, count in outputs)
    names = outputs[0][0].metrics
    return {name: sum(float(o.metrics[name]) * count for o, count in outputs) / total for name in names}
