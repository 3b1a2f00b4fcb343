"""What each training stage minimises. Legend: B rows, T positions, D hidden; N the positions that have a target."""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.core.documents import PADDING
from arcforge.data.batches import Batch
from arcforge.model.layers import Layout
from arcforge.model.trunk import Features, GlmMoeDsa

IGNORE = -100
BALANCE_WEIGHT = 1e-3


def language_modelling(
    model: GlmMoeDsa,
    batch: Batch,
    *,
    sparse: bool,
    indexer_loss: bool = False,
    mtp_steps: int = 0,
    mtp_weight: float = 0.0,
    mtp_rows: float = 1.0,
) -> dict[str, Tensor]:
    """Next-token loss, sequence-level balance loss, and MTP over `mtp_steps` shared-parameter steps (GLM-5 report, 2.1).

    L_MTP = weight / steps * sum_k CE_k, computed on the first `mtp_rows` share of the rows. indexer_loss: the trunk's
    indexers learn too, by KL over the keys that attention reads (report, 2.1.1); neither loss reaches the other's
    parameters, so no weight is needed between them.
    """
    features = model(batch.ids_BT, layout_of(model, batch, sparse=sparse, indexer_loss=indexer_loss))
    nll = next_token_nll(model, features.hidden_BTD, batch.targets(1))
    loss = nll
    scalars = {"nll": nll}
    if features.balance is not None:
        loss = loss + BALANCE_WEIGHT * features.balance
        scalars["balance"] = features.balance
    if features.indexer_kl_BT is not None:
        kl = features.indexer_kl_BT[batch.document_ids_BT != PADDING].mean()
        loss = loss + kl
        scalars["indexer_kl"] = kl
    if mtp_steps and mtp_weight:
        losses = mtp_losses(model, batch, features, mtp_steps, mtp_rows, sparse)
        loss = loss + mtp_weight * torch.stack(losses).mean()
        scalars |= {f"mtp_nll_{k + 1}": value for k, value in enumerate(losses)}
    return {"loss": loss, **scalars}


def mtp_losses(
    model: GlmMoeDsa, batch: Batch, features: Features, steps: int, share: float, sparse: bool
) -> list[Tensor]:
    """CE of each MTP step; step k joins the embedding of token t + k with the previous step's hidden state of t."""
    rows = max(1, round(share * len(batch.ids_BT)))
    part = batch[:rows]
    layout = layout_of(model, part, sparse=sparse)
    hidden_BTD = features.hidden_BTD[:rows]
    losses = []
    for k in range(1, steps + 1):
        hidden_BTD = model.draft_features(part.ids_BT.roll(-k, 1), hidden_BTD, layout).hidden_BTD
        losses.append(next_token_nll(model, hidden_BTD, part.targets(k + 1)))
    return losses


def indexer_warmup(model: GlmMoeDsa, batch: Batch) -> dict[str, Tensor]:
    """Dense warm-up: KL(p || softmax(I)) over all visible keys, MTP layer included; only the indexers train (2.1.1)."""
    layout = layout_of(model, batch, indexer_loss=True)
    features = model(batch.ids_BT, layout)
    assert features.indexer_kl_BT is not None
    kl_BT = features.indexer_kl_BT
    if model.mtp is not None:
        draft = model.draft_features(batch.ids_BT.roll(-1, 1), features.hidden_BTD, layout)
        assert draft.indexer_kl_BT is not None
        kl_BT = kl_BT + draft.indexer_kl_BT
    kl = kl_BT[batch.document_ids_BT != PADDING].mean()
    return {"loss": kl, "indexer_kl": kl}


def layout_of(model: GlmMoeDsa, batch: Batch, sparse: bool = False, indexer_loss: bool = False) -> Layout:
    return model.layout(batch.document_ids_BT, sparse, indexer_loss, batch.positions_BT)


def next_token_nll(model: GlmMoeDsa, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean negative log-likelihood over the positions that have a target; 0 when none has."""
    wanted_BT = targets_BT != IGNORE
    if not wanted_BT.any():
        return hidden_BTD.sum() * 0.0
    return -model.token_logprobs(hidden_BTD[wanted_BT], targets_BT[wanted_BT]).mean()
