"""Trajectories to training arrays: exact ids, rollout log-probs, masks and advantages, packed into bounded rows.

Legend: n tokens of a sample, N rows, T tokens per row. Every array is aligned to the token it is about: `logprobs[t]` is
the log-prob with which token t was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.data.packing import PackedRows, Tokens
from arcforge.data.sharing import pack_shared
from arcforge.rl.forks import contexts


@dataclass(frozen=True, eq=False)
class Sample:
    """One context of one rollout (a rollout that forked has several).

    ids: int32 [n]. logprobs: float32 [n], 0 where nothing was sampled. mask: bool [n], tokens the loss may touch.
    versions: int32 [n], weight version per token, -1 for prompt. advantage: of the rollout. share: this rollout's part
    of the step when every rollout counts alike (1/P * 1/G, times its copies after group repair).
    """

    rollout_id: str
    ids: np.ndarray
    logprobs: np.ndarray
    mask: np.ndarray
    versions: np.ndarray
    advantage: float
    share: float
    rollout_tokens: int


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of one training step in rows.

    shared: tokens of each sample that stand in its row's common prefix.
    rows: ids, document_ids (index into `samples`, -1 padding) and loss_mask, [N, T] each. logprobs, advantages, weights:
    float32 [N, T], 0 outside the mask. weights sum to 1 over the step, so the losses of single rows add up. versions: int32
    [N, T], of the weights that sampled the token, -1 outside the mask.
    """

    samples: list[Sample]
    rows: PackedRows
    shared: list[int]
    logprobs: np.ndarray
    advantages: np.ndarray
    weights: np.ndarray
    versions: np.ndarray

    def scatter(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Values per token of each sample ([n] each, in order of `samples`) to float32 [N, T]; padding gets 0."""
        return _scatter(self.rows, self.shared, values)

    def beyond_topk_share(self, topk: int | None) -> float:
        """Share of trained tokens predicted from a position with more than `topk` visible tokens, where sparse
        attention leaves some out; training below that length would never exercise it. None: attention is dense."""
        if topk is None:
            return 0.0
        trained = self.rows.loss_mask
        # Token t is predicted at position t - 1, which sees t tokens.
        return float((self.rows.positions[trained] > topk).mean()) if trained.any() else 0.0


def group_samples(members: Sequence[Trajectory], advantages: Sequence[float], groups: int) -> list[Sample]:
    """Samples of one group out of `groups` in the step. A trajectory listed twice (group repair) counts twice, once built.

    advantages: one per member. Trajectories without a trained token give no sample but keep their share of the mean.
    """
    copies: dict[str, int] = {}
    first: dict[str, tuple[Trajectory, float]] = {}
    for trajectory, advantage in zip(members, advantages, strict=True):
        copies[trajectory.rollout_id] = copies.get(trajectory.rollout_id, 0) + 1
        first.setdefault(trajectory.rollout_id, (trajectory, advantage))
    samples = []
    for rollout_id, (trajectory, advantage) in first.items():
        share = copies[rollout_id] / len(members) / groups
        tokens = sum(len(span.ids) for span in trajectory.spans if span.trained)
        for spans in contexts(trajectory.spans):
            if any(span.trained for span in spans):
                samples.append(_sample(rollout_id, spans, advantage, share, tokens))
    return samples


def build_batch(
    samples: Sequence[Sample],
    length: int,
    pad_id: int,
    reduction: Literal["sample_mean", "token_mean"] = "sample_mean",
) -> Batch:
    """Pack samples into rows of `length` tokens, those that begin alike behind their prefix. UserError when one is longer than a row.

    sample_mean: a token weighs share / trained tokens of its rollout (GLM-5 report, section 3.2, Eq. 1).
    token_mean: every trained token alike, times the share of its rollout relative to the average.
    """
    longest = max(samples, key=lambda sample: len(sample.ids), default=None)
    if longest is not None and len(longest.ids) > length:
        raise UserError(
            f"{longest.rollout_id} has {len(longest.ids)} tokens and a row holds {length}; raise the length"
        )
    documents = [Tokens.of(sample.ids, sample.mask) for sample in samples]
    rows, shared = pack_shared(documents, length, pad_id)
    mask = rows.loss_mask
    weights = np.where(mask, _scatter(rows, shared, _weights(samples, reduction)), 0).astype(np.float32)
    advantages = np.where(mask, _scatter(rows, shared, [np.full(len(s.ids), s.advantage) for s in samples]), 0)
    logprobs = np.where(mask, _scatter(rows, shared, [sample.logprobs for sample in samples]), 0)
    versions = np.where(mask, _scatter(rows, shared, [sample.versions for sample in samples], np.int32), -1)
    return Batch(list(samples), rows, shared, logprobs, advantages, weights, versions.astype(np.int32))


def _sample(rollout_id: str, spans: Sequence[TokenSpan], advantage: float, share: float, tokens: int) -> Sample:
    lengths = [len(span.ids) for span in spans]
    logprobs = [p for span in spans for p in (span.logprobs or [0.0] * len(span.ids))]
    return Sample(
        rollout_id=rollout_id,
        ids=np.array([i for span in spans for i in span.ids], dtype=np.int32),
        logprobs=np.array(logprobs, dtype=np.float32),
        mask=np.repeat([span.trained for span in spans], lengths),
        versions=np.repeat(np.array([span.version for span in spans], dtype=np.int32), lengths),
        advantage=advantage,
        share=share,
        rollout_tokens=tokens,
    )


def _weights(samples: Sequence[Sample], reduction: str) -> list[np.ndarray]:
    per_token = [sample.share / sample.rollout_tokens for sample in samples]
    if reduction == "token_mean":
        total = sum(sample.share * int(sample.mask.sum()) for sample in samples)
        per_token = [sample.share / total for sample in samples]
    return [np.full(len(sample.ids), weight) for sample, weight in zip(samples, per_token)]


def _scatter(
    rows: PackedRows, shared: Sequence[int], values: Sequence[np.ndarray], dtype: type[np.generic] = np.float32
) -> np.ndarray:
    out = np.zeros(rows.ids.shape, dtype=dtype)
    documents = rows.document_ids.ravel()
    order = np.argsort(documents, kind="stable")  # a document lies in one piece, so its tokens stay in order
    places = order[np.searchsorted(documents, 0, side="left", sorter=order) :]
    if len(places):
        out.ravel()[places] = np.concatenate([row[start:] for row, start in zip(values, shared, strict=True)])
    return out
