"""Proof of a run's trajectories: each model turn against what the engine itself wrote down (`serve.record`).

A turn is verified when a request of its rollout consumed exactly the ids that stand before it in its fork, and produced
exactly its ids, under the weight versions that its spans name. Every request stands for one turn at most, so a turn that is
recorded twice is found as well. The records of a stage are stages/<n>-<stage>/engine-*.jsonl; rollouts of one that has
none (an engine in the trainer's own process) cannot be verified.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.runs import RunFolder, read_jsonl
from arcforge.core.trajectory import Trajectory
from arcforge.rl.forks import contexts
from arcforge.rollout.record import read_trajectories
from arcforge.serve.record import digest, id_bytes
from arcforge.serve.token_answers import output_ids, weight_versions

RECORDS = "engine-*.jsonl"
_RID = re.compile(r"(?P<session>.*)-[0-9a-f]{12}-\d+")  # see clients.token_client

Row = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """What a trajectory says of one request. number: from 1, over all forks of the rollout."""

    number: int
    prompt_tokens: int
    prompt_sha256: str
    output_tokens: int
    output_sha256: str
    weight_versions: list[dict[str, int]]


@dataclass(frozen=True)
class Fault:
    """missing: no request of the rollout is this turn's; else one is, and `what` says what differs."""

    rollout_id: str
    turn: int
    what: str
    missing: bool


@dataclass
class StageCheck:
    """unused: requests of these rollouts that stand for no turn: given up by the gateway, or of an attempt that was run again.
    recorded: whether the stage has any engine record."""

    stage: str
    recorded: bool
    trajectories: int = 0
    verified: int = 0
    unused: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return sum(fault.missing for fault in self.faults)

    @property
    def differing(self) -> int:
        return len(self.faults) - self.missing


def verify(run: Path, stage: str = "") -> list[StageCheck]:
    """One result per stage that has trajectories, or of the one that is named. UserError where there are none."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder")
    checks: dict[str, StageCheck] = {}
    sessions: dict[str, dict[str, list[Row]]] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    for file in sorted(RunFolder(run).trajectories.glob("*.jsonl.zst")):
        name = file.name.removesuffix(".jsonl.zst").rpartition("-")[0]
        if stage and name != stage:
            continue
        if name not in checks:
            sessions[name] = read_records(run, name)
            checks[name] = StageCheck(name, recorded=bool(sessions[name]))
        for trajectory in read_trajectories(file):
            check(trajectory, sessions[name], checks[name])
            seen[name].add(trajectory.rollout_id)
    if not checks:
        raise UserError(f"{run}: no trajectories{f' of stage {stage}' if stage else ''} here")
    for name, one in checks.items():
        one.unused = sum(len(sessions[name].get(rollout_id, ())) for rollout_id in seen[name])
    return list(checks.values())


def read_records(run: Path, stage: str) -> dict[str, list[Row]]:
    """Answered requests by rollout id."""
    sessions: dict[str, list[Row]] = defaultdict(list)
    for file in sorted((run / "stages").glob(f"[0-9][0-9]-{stage}/{RECORDS}")):
        for row in read_jsonl(file):
            if row["finish_reason"] != "abort":  # the gateway takes no such answer
                named = _RID.fullmatch(row["rid"])
                sessions[named["session"] if named else row["rid"]].append(row)
    return sessions


def check(trajectory: Trajectory, sessions: dict[str, list[Row]], into: StageCheck) -> None:
    """Take the requests that stand for this trajectory's turns out of `sessions`, and count."""
    into.trajectories += 1
    if not into.recorded:
        return
    rows, left = sessions.get(trajectory.rollout_id, []), []
    for turn in turns(trajectory):
        exact = next((row for row in rows if not _difference(turn, row)), None)
        if exact is None:
            left.append(turn)
        else:
            rows.remove(exact)
            into.verified += 1
    for turn in left:
        into.faults.append(_fault(trajectory.rollout_id, turn, rows))


def turns(trajectory: Trajectory) -> Iterator[Turn]:
    """Consecutive model spans are one turn; its prompt is everything before them in their fork."""
    number = 0
    for spans in contexts(trajectory.spans):
        before, length = hashlib.sha256(), 0
        for source, part in groupby(spans, key=lambda span: span.source):
            part = list(part)
            ids = output_ids(part)
            if source == "model":
                number += 1
                yield Turn(number, length, before.hexdigest(), len(ids), digest(ids), weight_versions(part))
            before.update(id_bytes(ids))
            length += len(ids)


def _difference(turn: Turn, row: Row) -> str:
    """What of a request is not what the turn says; "" when nothing is."""
    for name in ("prompt", "output"):
        ours, theirs = getattr(turn, f"{name}_tokens"), row[f"{name}_tokens"]
        if ours != theirs or getattr(turn, f"{name}_sha256") != row[f"{name}_sha256"]:
            return f"{name} of {ours} ids, the engine's {theirs} are others"
    if turn.weight_versions != row["weight_versions"]:
        return f"weights {_ranges(turn.weight_versions)}, the engine's {_ranges(row['weight_versions'])}"
    return ""


def _fault(rollout_id: str, turn: Turn, rows: list[Row]) -> Fault:
    """The request that agrees with one half of the turn is taken for its own, out of `rows`."""
    for name in ("prompt_sha256", "output_sha256"):
        near = next((row for row in rows if row[name] == getattr(turn, name)), None)
        if near is not None:
            rows.remove(near)
            return Fault(rollout_id, turn.number, f"{_difference(turn, near)} (request {near['rid']})", missing=False)
    what = f"no request of {turn.prompt_tokens} prompt ids and {turn.output_tokens} output ids like these"
    return Fault(rollout_id, turn.number, what, missing=True)


def _ranges(versions: list[dict[str, int]]) -> str:
    return " ".join(f"v{run['version']}[{run['start']}:{run['end']}]" for run in versions)
