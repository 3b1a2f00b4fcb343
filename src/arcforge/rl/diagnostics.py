"""What a run tells about itself: staleness, importance ratios, groups, fairness, and who waited for whom.

Pure functions from trajectories, arrays and event rows to the JSON of `histograms.json` and `metrics.jsonl`. Four words
are kept apart: staleness (version at training minus the oldest version that sampled a token of the trajectory), age
(version at training minus the version that sampled one token), span (newest minus oldest version inside one
trajectory), lag (updates of the trainer's weights since the published version).

`step_metrics` is the whole row of a step. Every name in it is one of

    <metric>    by_family/<family>/<metric>    by_staleness/<0 | 1 | 2 | 3-4 | 5-8 | 9+>/<metric>

where a bucket of staleness holds the trajectories of that staleness and the tokens of that age. A family or bucket that
is not in the step has no names in its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from arcforge.core.trajectory import Trajectory
from arcforge.rl.ledger import Ledger
from arcforge.rl.samples import Batch

if TYPE_CHECKING:  # what runs beside the trainer reads diagnostics without torch
    from arcforge.rl.policy import Update


class Histogram(TypedDict):
    """counts[i] values lie in [edges[i], edges[i + 1]); the last bin is closed. Values beyond the ends are clipped in."""

    edges: list[float]
    counts: list[int]


# Log-spaced around 1, with the limits of the report's clip ranges on exact edges; outside 2^-4 .. 2^4 is "far off".
RATIO_EDGES = [float(2.0 ** (i / 4)) for i in range(-16, 17)]
STALENESS_EDGES = [float(i) for i in range(17)]
STALENESS_BUCKETS = {"0": 0, "1": 1, "2": 2, "3-4": 4, "5-8": 8, "9+": np.inf}
"""Name to the largest staleness in it."""

MISMATCH_LIMIT = 0.05
"""Runs without IcePop fail when the engines' probabilities are further apart (Ling team, IcePop); since p <= 1, the gap of
log-probs is at least as wide, so this limit on it warns early."""


@dataclass(frozen=True, eq=False)
class TrainedTokens:
    """The trained tokens of a step, or of a part of it, in packing order. Arrays of length N.

    log_ratios: float64, log pi_train - log pi_rollout before the update. ratios: float64, the importance weights. kept:
    bool, whether the loss let a gradient through. logprobs: float64, of the rollout engine. ages: int64, versions between
    sampling and training.
    """

    log_ratios: np.ndarray
    ratios: np.ndarray
    kept: np.ndarray
    logprobs: np.ndarray
    ages: np.ndarray

    @classmethod
    def of(cls, batch: Batch, update: Update, version: int) -> TrainedTokens:
        """ValueError when the update was not made with this batch."""
        trained = batch.rows.loss_mask
        if len(update.ratios) != trained.sum():
            raise ValueError(f"an update of {len(update.ratios)} tokens and a batch of {trained.sum()} trained tokens")
        logprobs = batch.logprobs[trained].astype(np.float64)
        return cls(
            log_ratios=update.train_logprobs - logprobs,
            ratios=update.ratios.astype(np.float64),
            kept=update.kept,
            logprobs=logprobs,
            ages=version - batch.versions[trained].astype(np.int64),
        )

    def where(self, chosen: np.ndarray) -> TrainedTokens:
        """chosen: bool [N]."""
        return TrainedTokens(*(array[chosen] for array in vars(self).values()))


def histogram(values: Iterable[float] | np.ndarray, edges: Sequence[float]) -> Histogram:
    array = np.clip(np.asarray(list(values), dtype=np.float64), edges[0], edges[-1])
    return {"edges": list(edges), "counts": np.histogram(array, bins=np.asarray(edges))[0].tolist()}


def merge(first: Histogram | None, second: Histogram) -> Histogram:
    """Add two histograms over the same edges."""
    if first is None:
        return second
    if first["edges"] != second["edges"]:
        raise ValueError("histograms over different edges cannot be added")
    return {"edges": first["edges"], "counts": [a + b for a, b in zip(first["counts"], second["counts"])]}


def staleness(trajectories: Iterable[Trajectory], version: int) -> list[int]:
    """Per trajectory: `version` at training minus the oldest version that sampled it (0 when nothing was sampled)."""
    return [version - min(t.versions, default=version) for t in trajectories]


def buckets(staleness: Sequence[int] | np.ndarray) -> np.ndarray:
    """The name of the bucket of each, str [N]."""
    return np.array(list(STALENESS_BUCKETS))[np.searchsorted(list(STALENESS_BUCKETS.values()), staleness)]


def histograms(
    trajectories: Sequence[Trajectory], version: int, ratios: np.ndarray, batch: Batch | None = None
) -> dict[str, Histogram]:
    """One step's entry for `histograms.json`. ratios: pi_train / pi_rollout of the trained tokens, in packing order; with
    the batch that they are of, also by family and by age, under the names of `step_metrics`."""
    result = {
        "staleness": histogram(staleness(trajectories, version), STALENESS_EDGES),
        "ratio": histogram(np.ravel(ratios), RATIO_EDGES),
    }
    for prefix, _, chosen in _parts(trajectories, batch, version) if batch is not None else ():
        if chosen.any():
            result[f"{prefix}ratio"] = histogram(ratios[chosen], RATIO_EDGES)
    return result


def step_metrics(
    groups: Sequence[Sequence[Trajectory]],
    batch: Batch,
    update: Update,
    version: int,
    lag: int = 0,
    ledger: Ledger | None = None,
) -> dict[str, float]:
    """Everything that is known of one step, under names that stay.

    groups: the step's groups of trajectories. batch: what was packed of them. update: what the step saw of it. version:
    the newest that was published before the step. lag: updates that the policy was ahead of it when it scored the batch;
    the mismatch of the engines can be told only when there are none. ledger: adds each family's
    `trained_over_dispatched`.
    """
    members = [t for group in groups for t in group]
    tokens = TrainedTokens.of(batch, update, version)
    row = {
        **group_metrics([[t.reward for t in group] for group in groups]),
        **staleness_metrics(members, version, lag),
        **_part_metrics(members, tokens),
    }
    if lag == 0:
        row |= mismatch_metrics(tokens)
    for prefix, trajectories, chosen in _parts(members, batch, version):
        part = _part_metrics(trajectories, tokens.where(chosen))
        row |= {prefix + name: value for name, value in part.items()}
    for family, shares in (fairness(ledger) if ledger is not None else {}).items():
        row[f"by_family/{family}/trained_over_dispatched"] = shares["trained_over_dispatched"]
    return row


def token_metrics(tokens: TrainedTokens) -> dict[str, float]:
    """Means over the trained tokens; only their number when there are none.

    clip_low_share, clip_high_share: tokens that the loss gave no gradient, by the side of 1 on which their ratio lies.
    ess: effective sample size (sum w)^2 / (n sum w^2), in (0, 1]. kl_k1, kl_k3: KL(pi_rollout || pi_train), estimated by
    -log r and by r - 1 - log r. entropy: nats per token, estimated as minus the mean log-prob that the rollout engine
    gave the tokens it sampled, not computed from whole distributions.
    """
    ratios, count = tokens.ratios, len(tokens.ratios)
    if not count:
        return {"tokens": 0.0}
    low, high = np.quantile(ratios, [0.01, 0.99])
    cut = ~tokens.kept
    return {
        "tokens": float(count),
        "ratio_mean": _mean(ratios),
        "ratio_p01": float(low),
        "ratio_p99": float(high),
        "clip_low_share": _mean(cut & (ratios < 1)),
        "clip_high_share": _mean(cut & (ratios >= 1)),
        "ess": float(ratios.sum() ** 2 / (count * np.square(ratios).sum())),
        "kl_k1": _mean(-tokens.log_ratios),
        "kl_k3": _mean(ratios - 1 - tokens.log_ratios),
        "entropy": -_mean(tokens.logprobs),
    }


def mismatch_metrics(tokens: TrainedTokens) -> dict[str, float]:
    """|log pi_train - log pi_rollout| of tokens that the trainer's own version sampled (age 0): what the two engines make
    of the same weights. Only the number of such tokens when there are none."""
    gaps = np.abs(tokens.log_ratios[tokens.ages == 0])
    if not len(gaps):
        return {"mismatch_tokens": 0.0}
    return {
        "mismatch_tokens": float(len(gaps)),
        "mismatch_mean": _mean(gaps),
        "mismatch_p99": float(np.quantile(gaps, 0.99)),
    }


def mismatch_alarm(
    value: float | None, stage: str, step: int, limit: float = MISMATCH_LIMIT
) -> dict[str, str | int | float] | None:
    """The row for `events.jsonl` when a step's `mismatch_mean` is over the limit or not a number, else None. value: None
    when no token of the step could tell."""
    if value is None or value <= limit:
        return None
    text = f"trainer and engine disagree by {value:.3g} nats per token on the same weights, over the limit of {limit:g}"
    row = {"who": "trainer", "kind": "alarm", "what": "mismatch", "stage": stage, "step": step}
    return {**row, "value": value, "limit": limit, "text": text}


def staleness_metrics(trajectories: Sequence[Trajectory], version: int, lag: int) -> dict[str, float]:
    """Versions; means and maximum over trajectories. lag: updates of the trainer since `version`."""
    ages = staleness(trajectories, version)
    spans = [max(t.versions, default=0) - min(t.versions, default=0) for t in trajectories]
    return {
        "staleness_mean": _mean(ages),
        "staleness_max": float(max(ages, default=0)),
        "version_span_mean": _mean(spans),
        "publish_lag": float(lag),
    }


def group_metrics(groups: Sequence[Sequence[float | None]], pass_reward: float = 1.0) -> dict[str, float]:
    """Rewards per group, None for a failed member. A share is of groups, `pass_rate` and `valid_share` of rollouts.

    flat_share: groups whose valid rewards are all equal and therefore teach nothing; solved_share and unsolved_share:
    those in which every, or no, valid member passed.
    """
    valid = [[r for r in group if r is not None] for group in groups]
    rewards = [r for group in valid for r in group]
    alive = [group for group in valid if group]
    return {
        "reward": _mean(rewards),
        "pass_rate": _mean([r >= pass_reward for r in rewards]),
        "valid_share": len(rewards) / max(1, sum(map(len, groups))),
        "flat_share": _mean([min(group) == max(group) for group in alive]),
        "solved_share": _mean([min(group) >= pass_reward for group in alive]),
        "unsolved_share": _mean([max(group) < pass_reward for group in alive]),
    }


def fairness(ledger: Ledger) -> dict[str, dict[str, float]]:
    """Per family: its share of dispatched and of trained groups, and trained over dispatched, which is 1 where every family
    gets its due. A family that starves, since its tasks are slow and always go stale, is far below 1."""
    states = ("running", "ready", "trained", "lost")
    families = sorted({dispatch.family for dispatch in ledger.dispatches.values()})
    dispatched = {family: sum(ledger.groups(state, family) for state in states) for family in families}
    trained = {family: ledger.groups("trained", family) for family in families}
    shares = {
        family: {
            "dispatched_share": dispatched[family] / max(1, sum(dispatched.values())),
            "trained_share": trained[family] / max(1, sum(trained.values())),
        }
        for family in families
    }
    return {
        family: {**share, "trained_over_dispatched": share["trained_share"] / share["dispatched_share"]}
        for family, share in shares.items()
    }


def _parts(
    trajectories: Sequence[Trajectory], batch: Batch, version: int
) -> Iterable[tuple[str, list[Trajectory], np.ndarray]]:
    """By family, then by staleness: prefix of the names, trajectories, and which trained tokens in packing order (bool
    [N]). Empty parts are left out."""
    trained = batch.rows.loss_mask
    family_of = {t.rollout_id: t.family for t in trajectories}
    families = np.array([family_of[sample.rollout_id] for sample in batch.samples])[batch.rows.document_ids[trained]]
    for family in sorted(set(family_of.values())):
        yield f"by_family/{family}/", [t for t in trajectories if t.family == family], families == family
    of_trajectories = buckets(staleness(trajectories, version))
    of_tokens = buckets(version - batch.versions[trained])
    for name in STALENESS_BUCKETS:
        members, chosen = [t for t, own in zip(trajectories, of_trajectories) if own == name], of_tokens == name
        if members or chosen.any():
            yield f"by_staleness/{name}/", members, chosen


def _part_metrics(trajectories: Sequence[Trajectory], tokens: TrainedTokens) -> dict[str, float]:
    """reward: mean over trajectories that have one. response_tokens: mean number of sampled tokens, trained or not."""
    rewards = [t.reward for t in trajectories if t.reward is not None]
    lengths = [sum(len(s.ids) for s in t.spans if s.source == "model") for t in trajectories]
    return {
        "rollouts": float(len(trajectories)),
        **({"reward": _mean(rewards)} if rewards else {}),
        **({"response_tokens": _mean(lengths)} if lengths else {}),
        **token_metrics(tokens),
    }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
