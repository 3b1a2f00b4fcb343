"""Replay of an asynchronous run: the trainer once more, from what the run wrote down, to the same bits.

Which rollouts met which weights in which order depends on the machine's mood; what the trainer made of them does not. The
buffer's files tell every step's groups, the trajectories hold every token, log-probability and version, and each published
version has a digest: a replay takes the same steps without engines and compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.trajectory import Trajectory
from arcforge.rl.agentic_step import AgenticConfig, advance, digest
from arcforge.rl.appendlog import RowTail
from arcforge.rl.buffer import BufferFiles, Group
from arcforge.rl.ledger import Dispatch
from arcforge.rl.policy import Policy
from arcforge.rollout.record import read_trajectories


@dataclass(frozen=True)
class ReplayedStep:
    """step: how many updates the weights have seen. digest: of the weights now; written: the run's, "" where it wrote none
    (nothing was published after that step)."""

    step: int
    groups: int
    rollouts: int
    digest: str
    written: str

    @property
    def equal(self) -> bool | None:
        """None where there is nothing to compare with."""
        return self.digest == self.written if self.written else None


def written_digests(events: Sequence[Mapping[str, Any]], stage: str) -> dict[int, str]:
    """Digest of the weights by step. UserError where a run that was started again published other bits of the same step."""
    found: dict[int, str] = {}
    for row in events:
        if row.get("kind") != "publish" or row.get("stage") != stage or "digest" not in row:
            continue
        if found.setdefault(row["step"], row["digest"]) != row["digest"]:
            raise UserError(f"step {row['step']} was published twice with different weights; see events.jsonl")
    return found


def replay(
    config: AgenticConfig, policy: Policy, trajectories: Path, stage: str, pad_id: int, written: Mapping[int, str]
) -> Iterator[ReplayedStep]:
    """Advance the policy, which must hold the weights that the stage began with, step by step, in place.

    UserError when the buffer's files do not hold what a step was made of.
    """
    files = BufferFiles(trajectories, stage)
    dispatches = [Dispatch.model_validate(row) for row in RowTail(files.dispatched).poll()]
    shelf = _Shelf(files.trajectories)
    yield ReplayedStep(0, 0, 0, digest(policy.model), written.get(0, ""))
    for step, rollout_ids in sorted(commits(RowTail(files.consumed).poll()).items()):
        groups = _groups(dispatches, shelf.take(rollout_ids))
        advance(config, policy, groups, step - 1, pad_id)
        yield ReplayedStep(step, len(groups), len(rollout_ids), digest(policy.model), written.get(step, ""))


def commits(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[str]]:
    """Rollouts by the step that trained them, of the steps whose weights were not lost to a kill."""
    found: dict[int, list[str]] = {}
    for row in rows:
        if row["kind"] == "commit":
            found[row["step"]] = row["ids"]
        elif row["kind"] == "rewind":
            found = {step: ids for step, ids in found.items() if step <= row["step"]}
    return found


def _groups(dispatches: Sequence[Dispatch], members: Sequence[Trajectory]) -> list[Group]:
    """The groups of a step in the order in which their first member was committed."""
    owner = {rollout_id: dispatch for dispatch in dispatches for rollout_id in dispatch.rollout_ids}
    found: dict[str, Group] = {}
    for trajectory in members:
        dispatch = owner.get(trajectory.rollout_id)
        if dispatch is None:
            raise UserError(
                f"rollout {trajectory.rollout_id} was trained but never dispatched; the buffer is not whole"
            )
        found.setdefault(dispatch.group_id, Group(dispatch, [])).members.append(trajectory)
    return list(found.values())


class _Shelf:
    """Trajectories by id, read from their file only as far as needed and held until they are taken."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, read_trajectories(path)
        self._held: dict[str, Trajectory] = {}

    def take(self, rollout_ids: Sequence[str]) -> list[Trajectory]:
        missing = set(rollout_ids) - self._held.keys()
        while missing:
            trajectory = next(self._rest, None)
            if trajectory is None:
                raise UserError(
                    f"{self._path}: no rollout {sorted(missing)[0]}, which was trained; the file is not whole"
                )
            self._held[trajectory.rollout_id] = trajectory
            missing.discard(trajectory.rollout_id)
        return [self._held.pop(rollout_id) for rollout_id in rollout_ids]
