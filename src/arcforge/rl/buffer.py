"""The durable trajectory buffer between the orchestrator and the trainer: three append-only files, no server.

    <name>-dispatched.jsonl    orchestrator: one row per dispatched group
    <name>-0.jsonl.zst         orchestrator: finished trajectories, one checksummed zstd frame each
    <name>-consumed.jsonl      trainer: commits of training steps, drops, rewinds

Each file has one writer, held by a lock that a killed process gives back; everyone reads by polling the tail. Every row
is on the disk before its call returns, so after `kill -9` of either side, at any moment,

    dispatched = trained + dropped + failed + in_flight + ready

holds, no finished trajectory is lost and none is given to the trainer twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.trajectory import Trajectory
from arcforge.rl.appendlog import RowTail, RowWriter
from arcforge.rl.ledger import Dispatch, Ledger
from arcforge.rollout.record import TrajectoryTail, TrajectoryWriter


@dataclass(frozen=True)
class BufferFiles:
    """The paths of one stage's buffer."""

    folder: Path
    name: str

    @property
    def dispatched(self) -> Path:
        return self.folder / f"{self.name}-dispatched.jsonl"

    @property
    def trajectories(self) -> Path:
        return self.folder / f"{self.name}-0.jsonl.zst"

    @property
    def consumed(self) -> Path:
        return self.folder / f"{self.name}-consumed.jsonl"


@dataclass(frozen=True)
class Group:
    """A finished group as the trainer gets it. size: dispatched members; members: the valid and fresh ones."""

    dispatch: Dispatch
    members: list[Trajectory]

    @property
    def size(self) -> int:
        return len(self.dispatch.rollout_ids)


def read_ledger(folder: Path, name: str) -> Ledger:
    """The state of a buffer for an onlooker. Later files are read first, so that no row refers to one not yet read."""
    files, ledger = BufferFiles(folder, name), Ledger()
    consumed, finished = RowTail(files.consumed).poll(), TrajectoryTail(files.trajectories).poll()
    for row in RowTail(files.dispatched).poll():
        ledger.dispatch(Dispatch.model_validate(row))
    for trajectory in finished:
        ledger.finish(trajectory)
    for row in consumed:
        ledger.consume(row)
    return ledger


class BufferWriter:
    """The orchestrator's side: records dispatches and finished trajectories, follows what the trainer consumed."""

    def __init__(self, folder: Path, name: str) -> None:
        files = BufferFiles(folder, name)
        self._dispatched = RowWriter(files.dispatched)
        self._trajectories = TrajectoryWriter(files.trajectories)
        self._consumed = RowTail(files.consumed)
        self.ledger = Ledger()
        for row in RowTail(files.dispatched).poll():
            self.ledger.dispatch(Dispatch.model_validate(row))
        for trajectory in TrajectoryTail(files.trajectories).poll():
            self.ledger.finish(trajectory)
        self.poll()

    def dispatch(self, dispatch: Dispatch) -> None:
        """Record a group before its rollouts start."""
        self.ledger.dispatch(dispatch)
        self._dispatched.append(dispatch.model_dump(mode="json"))

    def finish(self, trajectory: Trajectory) -> None:
        """Record a finished rollout, failed ones too. LedgerError for one that was not in flight."""
        self.ledger.finish(trajectory)
        self._trajectories.append(trajectory)

    def poll(self) -> None:
        """Take in what the trainer wrote since the last call."""
        for row in self._consumed.poll():
            self.ledger.consume(row)

    def close(self) -> None:
        self._dispatched.close()
        self._trajectories.close()


class BufferReader:
    """The trainer's side: takes ready groups, commits them with the step that trained them.

    step: the step of the checkpoint the trainer starts from. Groups committed by later steps, whose weights were lost,
    become ready again. So commit a step before its checkpoint is made durable, never after.
    """

    def __init__(self, folder: Path, name: str, step: int = 0) -> None:
        files = BufferFiles(folder, name)
        self.ledger = Ledger()
        self._writer = RowWriter(files.consumed)
        self._finished, self._dispatched = TrajectoryTail(files.trajectories), RowTail(files.dispatched)
        self._held: dict[str, Trajectory] = {}
        self._queue: dict[str, None] = {}
        self._taken: set[str] = set()
        self.poll()
        for row in RowTail(files.consumed).poll():
            self.ledger.consume(row)
        if self.ledger.step > step:
            self._write({"kind": "rewind", "step": step})
        self._settle()

    def poll(self) -> None:
        """Take in what the orchestrator wrote since the last call."""
        finished = self._finished.poll()  # before the dispatches: those of all finished rollouts are then there
        for row in self._dispatched.poll():
            self.ledger.dispatch(Dispatch.model_validate(row))
        for trajectory in finished:
            self.ledger.finish(trajectory)
            if self.ledger.state(trajectory.rollout_id) == "ready":
                self._held[trajectory.rollout_id] = trajectory
            self._enqueue(trajectory.rollout_id)

    def take(self, count: int, version: int, max_staleness: Callable[[str], int] | None = None) -> list[Group]:
        """The `count` groups that finished first, or [] while there are fewer.

        A trajectory is dropped as "stale" when version - oldest version that sampled it > max_staleness(its family) (GLM-5
        report, section 4.1.2), and the rest of a group as "too_few_valid" when fewer than two members are left.
        """
        self.poll()
        self._drop_unfit(version, max_staleness)
        free = [g for g in self._queue if g not in self._taken and self.ledger.group_state(g) == "ready"]
        if len(free) < count:
            return []
        self._taken.update(free[:count])
        return [self._group(group_id) for group_id in free[:count]]

    def commit(self, step: int, rollout_ids: Iterable[str]) -> None:
        """Mark rollouts as trained by `step`, in one durable row. LedgerError unless every one is ready.

        A member that the step did not use is given a reason with `drop` first, else it stays "ready" in the books.
        """
        self._write({"kind": "commit", "step": step, "ids": list(dict.fromkeys(rollout_ids))})
        self._settle()

    def drop(self, rollout_ids: Sequence[str], reason: str) -> None:
        """Give up rollouts that are ready or in flight."""
        if rollout_ids:
            self._write({"kind": "drop", "reason": reason, "ids": list(rollout_ids)})
            for rollout_id in rollout_ids:
                self._enqueue(rollout_id)
            self._settle()

    def close(self) -> None:
        self._writer.close()

    def _enqueue(self, rollout_id: str) -> None:
        group_id = self.ledger.group_of(rollout_id)
        if self.ledger.group_state(group_id) != "running":
            self._queue[group_id] = None

    def _group(self, group_id: str) -> Group:
        dispatch = self.ledger.dispatches[group_id]
        return Group(dispatch, [self._held[i] for i in dispatch.rollout_ids if self.ledger.state(i) == "ready"])

    def _drop_unfit(self, version: int, max_staleness: Callable[[str], int] | None) -> None:
        waiting = [group_id for group_id in self._queue if group_id not in self._taken]
        if max_staleness is not None:
            members = [t for group_id in waiting for t in self._group(group_id).members]
            excesses = {
                t.rollout_id: version - min(t.versions, default=version) - max_staleness(t.family) for t in members
            }
            self.drop([rollout_id for rollout_id, excess in excesses.items() if excess > 0], "stale")
        lost = [g for g in waiting if self.ledger.group_state(g) == "lost"]
        self.drop([t.rollout_id for g in lost for t in self._group(g).members], "too_few_valid")

    def _settle(self) -> None:
        """Forget trajectories that will never be asked for again."""
        self._held = {i: t for i, t in self._held.items() if self.ledger.state(i) == "ready"}
        for group_id in list(self._queue):
            if not self._group(group_id).members:
                del self._queue[group_id]
        self._taken &= self._queue.keys()

    def _write(self, row: dict[str, object]) -> None:
        self.ledger.consume(row)
        self._writer.append(row)
