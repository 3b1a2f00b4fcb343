"""One policy update: packed samples -> log-probabilities -> loss -> weights (tensor half of `rl`).

The model is GLM-5's backbone or anything else that answers as a `PolicyModel` does. Legend: N trained tokens of the step, in
packing order (row by row); M those of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arcforge.core.documents import PADDING
from arcforge.core.errors import UserError
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.rl.losses import LossOutput, together
from arcforge.rl.micro_batches import MicroBatch, micro_batches, separate
from arcforge.rl.policy_model import GlmPolicyModel, PolicyModel
from arcforge.rl.samples import Batch

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], LossOutput]
"""(train [1, N], rollout [1, N], advantages or teacher [1, N], mask [1, N], weights [1, N]) -> LossOutput."""

MICRO_TOKENS = 8192
ROW_TOKENS = 640
LAST_LR = 0.1
"""RL stages decay their rate linearly to this share of it."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several losses in one step. choice: int [N rows, T], the index in `losses` of the one that trains a token; it is read
    inside the loss mask."""

    losses: Sequence[Loss]
    choice: np.ndarray


@dataclass(frozen=True, eq=False)
class Update:
    """What a step saw, before its weights moved. metrics: over all of its trained tokens.

    Arrays, one entry per trained token in packing order. train_logprobs: float32, log pi_train. ratios: float32, pi_train /
    pi_rollout. kept: bool, whether the loss let its gradient through. samples: int32, index into `batch.samples`. versions:
    int32, of the weights that sampled it.
    """

    metrics: dict[str, float]
    train_logprobs: np.ndarray
    ratios: np.ndarray
    kept: np.ndarray
    samples: np.ndarray
    versions: np.ndarray


class Policy:
    """A model with its optimizer. micro_tokens: tokens of one forward and backward pass, padding included; the gradient of a
    step does not depend on it, its memory does. freeze_indexer: of GLM-5's backbone."""

    def __init__(
        self,
        model: GlmMoeDsa | PolicyModel,
        lr: float,
        freeze_indexer: bool = True,
        micro_tokens: int = MICRO_TOKENS,
    ) -> None:
        self._policy_model = GlmPolicyModel(model, freeze_indexer) if isinstance(model, GlmMoeDsa) else model
        self.model = self._policy_model.module
        self.specs = self._policy_model.specs
        self.micro_tokens = micro_tokens
        self.optimizer = MuonAdamW(self.model, self.specs, OptimizerConfig(lr=lr, weight_decay=0.0))

    @property
    def topk(self) -> int | None:
        """Most positions that a token attends to; None where attention leaves none out."""
        return self._policy_model.topk

    def save(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder."""
        self._policy_model.save(folder)

    def update(self, batch: Batch, signal: np.ndarray, loss: Loss | Mixture, lr_scale: float = 1.0) -> Update:
        """One optimizer step on all rows of the batch. signal: advantages or teacher log-probs, float32 [N, T].

        UserError when nothing is trained or the loss or its gradient is not a number.
        """
        mask = batch.rows.loss_mask
        if not mask.any():
            raise UserError("a policy update got no trained token; every rollout of the step was masked")
        rows = batch.rows if self._policy_model.packs else separate(batch.rows)
        mixture = loss if isinstance(loss, Mixture) else Mixture([loss], np.zeros(mask.shape, np.int64))
        arrays = (batch.logprobs, signal, batch.weights, mixture.choice)
        step = _Step(mixture.losses, *(torch.from_numpy(array[mask]) for array in arrays))
        portions = list(micro_batches(rows, self.micro_tokens))
        tokens = sum(int((portion.rows.document_ids != PADDING).sum()) for portion in portions)
        train_N = torch.zeros(int(mask.sum()))
        for portion in portions:
            train_N[torch.from_numpy(portion.places)] = self._backward(portion, step, tokens)
        whole = step.output(train_N, slice(None))
        norm = self.optimizer.step(lr_scale)
        metrics = {name: float(value) for name, value in whole.metrics.items()}
        metrics |= {"loss": float(whole.loss), "grad_norm": norm}
        if not isfinite(metrics["loss"]) or not isfinite(norm):
            raise UserError("the policy loss or its gradient is not a number; lower the stage's lr")
        return Update(
            metrics,
            train_logprobs=train_N.numpy(),
            ratios=whole.ratio_BT[0].numpy(),
            kept=whole.kept_BT[0].numpy(),
            samples=batch.rows.document_ids[mask],
            versions=batch.versions[mask],
        )

    def _backward(self, portion: MicroBatch, step: _Step, tokens: int) -> Tensor:
        """Add the gradient of a micro-batch; its log-probs [M], detached. tokens: of the step, padding apart."""
        scored = self._policy_model.score(portion.rows)
        total = step.output(scored.logprobs_N, torch.from_numpy(portion.places)).loss
        if scored.auxiliary is not None:
            total = total + scored.auxiliary / tokens
        total.backward()
        return scored.logprobs_N.detach().cpu()


@dataclass(frozen=True, eq=False)
class _Step:
    """The losses with what they need of each trained token of the step."""

    losses: Sequence[Loss]
    rollout_N: Tensor
    signal_N: Tensor
    weights_N: Tensor
    choice_N: Tensor

    def output(self, train_M: Tensor, places: Tensor | slice) -> LossOutput:
        """The loss of the tokens at these places, as a row, on the log-probs' device."""
        rollout, signal, weights, choice = (
            tensor[places][None].to(train_M.device)
            for tensor in (self.rollout_N, self.signal_N, self.weights_N, self.choice_N)
        )
        masks = [choice == index for index in range(len(self.losses))]
        outputs = [
            loss(train_M[None], rollout, signal, mask, weights) for loss, mask in zip(self.losses, masks, strict=True)
        ]
        return together(outputs, masks)
