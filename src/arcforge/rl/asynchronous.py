"""The trainer of asynchronous agentic RL (GLM-5 report, section 4.1): engine, orchestrator and trainer run at the same time.

    trainer (this process)   takes finished groups from the buffer, updates, publishes weights every `publish_every` steps
    engine                   `serve` with the published weights, updated in flight
    orchestrator             rollouts through the gateway, written to the buffer

The trainer knows samples and published weights; it never waits for a rollout that it does not need.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.metrics import JsonLines, MetricSink, Progress
from arcforge.launch.local import Launcher
from arcforge.rl.agentic_step import AgenticConfig, advance, digest
from arcforge.rl.buffer import BufferReader, Group
from arcforge.rl.diagnostics import fairness, histograms, merge, mismatch_alarm, step_metrics
from arcforge.rl.ledger import LedgerError
from arcforge.rl.pinned import PinnedWeights
from arcforge.rl.policy import Policy
from arcforge.rl.publish import Publisher, latest
from arcforge.rl.state import load_state, save_state

POLL_SECONDS = 0.02
STALL_SECONDS = 300.0
NAME = "agentic_rl"


@dataclass
class Place:
    """Where the stage writes. source: the checkpoint it starts from. seed: of tasks and sampling."""

    folder: Path
    trajectories: Path
    source: Path
    sink: MetricSink
    events: JsonLines
    tokenizer: Tokenizer
    seed: int

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def pinned(self) -> PinnedWeights:
        return PinnedWeights(self.folder / "pinned")

    @property
    def state_file(self) -> Path:
        return self.folder / "trainer" / "state.pt"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"


@dataclass
class Outcome:
    beyond_topk_share: float
    histograms: dict
    accounts: dict


def train(config: AgenticConfig, place: Place, policy: Policy, launcher: Launcher) -> Outcome:
    """Run the stage's steps. The launcher's components are started by the caller; their death raises ComponentError."""
    state = load_state(place.state_file, policy) or {"step": 0, "version": 0, "histograms": {}, "shares": []}
    step, version, merged, shares = state["step"], state["version"], state["histograms"], state["shares"]
    reader = BufferReader(place.trajectories, NAME, step)
    version = _published(place, policy, version, step)
    _pin(config, place, step)
    progress = Progress(NAME, config.steps, done=step)
    while step < config.steps:
        groups = _complete(reader, _wait_for_groups(config, place, reader, launcher, version))
        if not groups:
            continue
        start = time.monotonic()
        published, lag = version, step % config.publish_every
        batch, update = advance(config, policy, groups, step, place.tokenizer.pad_id)
        step += 1
        members = [t for group in groups for t in group.members]
        for key, value in histograms(members, version, update.ratios, batch).items():
            merged[key] = merge(merged.get(key), value)
        shares.append(batch.beyond_topk_share(policy.topk))
        reader.commit(step, [t.rollout_id for t in members])
        if step % config.publish_every == 0:
            following = version + 1  # the number under which these weights are published next
            save_state(place.state_file, policy, step=step, version=following, histograms=merged, shares=shares)
            version = publish(place, policy, step)
            _pin(config, place, step)
        books = reader.ledger.counts()
        if not books.balanced:
            raise LedgerError(f"after step {step} the rollouts do not add up: {books.line}")
        row = {
            "stage": NAME,
            "step": step,
            "version": version,
            **step_metrics([group.members for group in groups], batch, update, published, lag, reader.ledger),
            **update.metrics,
            **books.row(),
            "turns": float(np.mean([t.metrics.get("turns", 0.0) for t in members])),
            "train_seconds": time.monotonic() - start,
        }
        place.sink.write(row)
        write_evaluations(place)
        alarm = mismatch_alarm(row.get("mismatch_mean"), NAME, step)
        if alarm is not None:
            place.events.write(alarm)
            print(f"{NAME}: step {step}: {alarm['text']}", file=sys.stderr, flush=True)
        place.events.write(
            {"who": "trainer", "kind": "batch", "stage": NAME, "step": step, "seconds": row["train_seconds"]}
        )
        progress.update(1, reward=row["reward"], turns=row["turns"], rollouts=books.line)
    progress.close()
    accounts = {**reader.ledger.counts().model_dump(), "fairness": fairness(reader.ledger)}
    reader.close()
    return Outcome(float(np.mean(shares)) if shares else 0.0, merged, accounts)


def _complete(reader: BufferReader, groups: Sequence[Group]) -> list[Group]:
    """Groups with more than half of their members valid; the others are dropped with that reason (section 4.1.2)."""
    broken = [group for group in groups if 2 * len(group.members) <= group.size]
    reader.drop([t.rollout_id for group in broken for t in group.members], "group_incomplete")
    return [group for group in groups if group not in broken]


def _published(place: Place, policy: Policy, version: int, step: int) -> int:
    """The version of the policy's weights, published now unless they were before a kill: a new number for old weights
    would make finished rollouts look staler than they are."""
    newest = latest(place.weights)
    return version if newest is not None and newest.version == version else publish(place, policy, step)


def publish(place: Place, policy: Policy, step: int) -> int:
    """Publish the current weights under the next version number (numbers are never used twice, also after a resume). Their
    digest is written down for a replay."""
    newest = latest(place.weights)
    following = 0 if newest is None else newest.version + 1
    Publisher(place.weights).publish(following, policy.save)
    row = {"version": following, "step": step, "digest": digest(policy.model)}
    place.events.write({"who": "trainer", "kind": "publish", "stage": NAME, **row})
    return following


def _pin(config: AgenticConfig, place: Place, step: int) -> None:
    newest = latest(place.weights)
    if newest is not None and config.evaluate_every and step % config.evaluate_every == 0:
        place.pinned.pin(newest, step)


def write_evaluations(place: Place) -> None:
    """Put what the evaluator found since the last time among the metrics, under the step whose weights it evaluated."""
    for row in place.pinned.collect():
        place.sink.write({"stage": f"{NAME}_evaluation", **row})


def _wait_for_groups(
    config: AgenticConfig, place: Place, reader: BufferReader, launcher: Launcher, version: int
) -> list[Group]:
    """The next batch; raises ComponentError when a component died, UserError when nothing moves for STALL_SECONDS."""
    groups = reader.take(config.groups, version, config.staleness_of)
    if groups:
        return groups
    place.events.write({"who": "trainer", "kind": "wait_start", "stage": NAME, "for": "rollouts"})
    last, seen = time.monotonic(), reader.ledger.counts()
    while not groups:
        launcher.check()
        time.sleep(POLL_SECONDS)
        groups = reader.take(config.groups, version, config.staleness_of)
        counts = reader.ledger.counts()
        if counts != seen:
            last, seen = time.monotonic(), counts
        if time.monotonic() - last > STALL_SECONDS:
            raise UserError(f"{NAME}: no rollout finished for {STALL_SECONDS:.0f} s; see {place.folder}/logs")
    place.events.write({"who": "trainer", "kind": "wait_end", "stage": NAME, "for": "rollouts"})
    return groups
