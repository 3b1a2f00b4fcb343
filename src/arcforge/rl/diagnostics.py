"""What a run tells about itself: staleness, importance ratios, groups, fairness, and who waited for whom.

Pure functions from trajectories, arrays and event rows to the JSON of `histograms.json` and `metrics.jsonl`. Three words
are kept apart: staleness (version at training minus the oldest version that sampled a token of the trajectory), span
(newest minus oldest version inside one trajectory), lag (trainer's version minus the published one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from arcforge.core.trajectory import Trajectory
from arcforge.rl.ledger import Ledger


class Histogram(TypedDict):
    """counts[i] values lie in [edges[i], edges[i + 1]); the last bin is closed. Values beyond the ends are clipped in."""

    edges: list[float]
    counts: list[int]


# Log-spaced around 1, with the limits of the report's clip ranges on exact edges; outside 2^-4 .. 2^4 is "far off".
RATIO_EDGES = [float(2.0 ** (i / 4)) for i in range(-16, 17)]
STALENESS_EDGES = [float(i) for i in range(17)]


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


def histograms(trajectories: Iterable[Trajectory], version: int, ratios: np.ndarray) -> dict[str, Histogram]:
    """One step's entry for `histograms.json`. ratios: pi_train / pi_rollout of the trained tokens."""
    return {
        "staleness": histogram(staleness(trajectories, version), STALENESS_EDGES),
        "ratio": histogram(np.ravel(ratios), RATIO_EDGES),
    }


def staleness_metrics(trajectories: Sequence[Trajectory], version: int, published: int) -> dict[str, float]:
    """Versions; means and maximum over trajectories."""
    ages = staleness(trajectories, version)
    spans = [max(t.versions, default=0) - min(t.versions, default=0) for t in trajectories]
    return {
        "staleness_mean": _mean(ages),
        "staleness_max": float(max(ages, default=0)),
        "version_span_mean": _mean(spans),
        "publish_lag": float(version - published),
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
    """Per family: its share of dispatched and of trained groups. A family whose tasks are slow and always go stale shows
    up as trained far below dispatched."""
    states = ("running", "ready", "trained", "lost")
    families = sorted({dispatch.family for dispatch in ledger.dispatches.values()})
    dispatched = {family: sum(ledger.groups(state, family) for state in states) for family in families}
    trained = {family: ledger.groups("trained", family) for family in families}
    return {
        family: {
            "dispatched_share": dispatched[family] / max(1, sum(dispatched.values())),
            "trained_share": trained[family] / max(1, sum(trained.values())),
        }
        for family in families
    }


def timeline(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Who waited for whom, from rows of `events.jsonl` (`wait_start` and `wait_end` with `who` and `for`, time in s).

    Per component: seconds from its first to its last event, seconds waited by whom it waited for, and the share in which
    it did not wait. A wait that never ended (the process was killed) counts until the component's last event.
    """
    rows = sorted((row for row in events if "who" in row), key=lambda row: row["time"])
    result: dict[str, dict[str, Any]] = {}
    for who in dict.fromkeys(row["who"] for row in rows):
        own = [row for row in rows if row["who"] == who]
        seconds = own[-1]["time"] - own[0]["time"]
        waited = _waited(own)
        busy = 1 - sum(waited.values()) / seconds if seconds > 0 else 1.0
        result[who] = {"seconds": seconds, "waited": waited, "busy_share": max(0.0, busy)}
    return result


def _waited(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    waited: dict[str, float] = {}
    since: dict[str, float] = {}
    for row in rows:
        target = str(row.get("for", ""))
        if row["kind"] == "wait_start":
            since.setdefault(target, row["time"])
        elif row["kind"] == "wait_end" and target in since:
            waited[target] = waited.get(target, 0.0) + row["time"] - since.pop(target)
    for target, start in since.items():
        waited[target] = waited.get(target, 0.0) + rows[-1]["time"] - start
    return waited


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
