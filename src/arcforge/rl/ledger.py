"""What became of every rollout. A fold over the rows of the buffer's files; the same on both sides, from files alone.

States of a rollout:   in_flight -> ready | failed(boundary);   ready -> trained(step) | dropped(reason)
States of a group:     running (a member is in flight), ready, trained, lost (too few members are left to learn from)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from arcforge.core.messages import Value
from arcforge.core.trajectory import Trajectory

GroupState = Literal["running", "ready", "trained", "lost"]


class LedgerError(ValueError):
    """A row that contradicts the rows before it: a bug in a writer, never a state to carry on from."""


class Dispatch(Value):
    """One dispatched group. counter: number of the dispatch in the stage; index: the task's index in its family."""

    counter: int
    group_id: str
    family: str
    index: int
    rollout_ids: tuple[str, ...]
    version: int

    @property
    def min_valid(self) -> int:
        """Members that must be left: a group teaches by comparison, except where its size is 1 by design."""
        return min(2, len(self.rollout_ids))


class Counts(Value):
    """Rollouts by state. `dispatched` always equals the sum of the others."""

    dispatched: int
    in_flight: int
    ready: int
    trained: int
    dropped: dict[str, int]
    failed: dict[str, int]

    @property
    def balanced(self) -> bool:
        settled = self.trained + sum(self.dropped.values()) + sum(self.failed.values())
        return self.dispatched == settled + self.in_flight + self.ready

    def row(self) -> dict[str, float]:
        """The books as metrics."""
        dropped, failed = sum(self.dropped.values()), sum(self.failed.values())
        numbers = (self.dispatched, self.trained, dropped, failed, self.ready, self.in_flight)
        names = ("dispatched", "trained", "dropped", "failed", "ready", "in_flight")
        return {f"books/{name}": float(number) for name, number in zip(names, numbers)}

    @property
    def line(self) -> str:
        """dispatched=trained+dropped+failed+ready+in_flight, in numbers."""
        dispatched, *rest = (f"{number:.0f}" for number in self.row().values())
        return f"{dispatched}={'+'.join(rest)}"


class Ledger:
    """Dispatches by group id, and the state of every rollout and group."""

    def __init__(self) -> None:
        self.dispatches: dict[str, Dispatch] = {}
        self.step = 0
        self._group_of: dict[str, str] = {}
        self._state: dict[str, tuple[str, str | int]] = {}
        self._rollouts: Counter[tuple[str, str]] = Counter()
        self._groups: dict[str, GroupState] = {}
        self._group_counts: Counter[tuple[GroupState, str]] = Counter()

    def dispatch(self, dispatch: Dispatch) -> None:
        if dispatch.group_id in self.dispatches:
            raise LedgerError(f"group {dispatch.group_id} was dispatched twice")
        self.dispatches[dispatch.group_id] = dispatch
        for rollout_id in dispatch.rollout_ids:
            if rollout_id in self._state:
                raise LedgerError(f"rollout {rollout_id} was dispatched twice")
            self._group_of[rollout_id] = dispatch.group_id
            self._set(rollout_id, "in_flight")
        self._regroup(dispatch.group_id)

    def finish(self, trajectory: Trajectory) -> None:
        """The rollout is ready, or failed at a boundary. One that was dropped meanwhile stays dropped."""
        state, _ = self._get(trajectory.rollout_id)
        if state == "dropped":
            return
        if state != "in_flight":
            raise LedgerError(f"rollout {trajectory.rollout_id} finished twice")
        if trajectory.valid:
            self._move([trajectory.rollout_id], "ready")
        else:
            boundary = trajectory.failure.boundary if trajectory.failure else "judge"  # no reward and no reason
            self._move([trajectory.rollout_id], "failed", boundary)

    def consume(self, row: dict[str, Any]) -> None:
        """A row of the trainer: commit {step, ids}, drop {reason, ids} or rewind {step}."""
        if row["kind"] == "commit":
            if row["step"] <= self.step:
                raise LedgerError(f"step {row['step']} was committed after step {self.step}")
            self._expect(row["ids"], {"ready"})
            self._move(row["ids"], "trained", row["step"])
            self.step = row["step"]
        elif row["kind"] == "drop":
            # A rollout given up while in flight may fail before the other side hears of it: both then call it dropped.
            self._expect(row["ids"], {"ready", "in_flight", "failed"})
            self._move(row["ids"], "dropped", row["reason"])
        elif row["kind"] == "rewind":
            late = [i for i, (state, step) in self._state.items() if state == "trained" and int(step) > row["step"]]
            self._move(late, "ready")
            self.step = row["step"]
        else:
            raise LedgerError(f"unknown row {row['kind']!r}")

    def counts(self) -> Counts:
        by_state: Counter[str] = Counter()
        details: dict[str, dict[str, int]] = {"dropped": {}, "failed": {}}
        for (state, detail), count in self._rollouts.items():
            by_state[state] += count
            if state in details and count:
                details[state][detail] = count
        return Counts(
            dispatched=len(self._state),
            in_flight=by_state["in_flight"],
            ready=by_state["ready"],
            trained=by_state["trained"],
            **details,
        )

    def groups(self, state: GroupState, family: str | None = None) -> int:
        """How many groups are in a state, of one family or of all."""
        return sum(n for (s, f), n in self._group_counts.items() if s == state and family in (None, f))

    def group_state(self, group_id: str) -> GroupState:
        return self._groups[group_id]

    def state(self, rollout_id: str) -> str:
        """in_flight, ready, trained, dropped or failed. LedgerError when it was never dispatched."""
        return self._get(rollout_id)[0]

    def group_of(self, rollout_id: str) -> str:
        return self._group_of[rollout_id]

    def unfinished(self) -> list[tuple[Dispatch, list[str]]]:
        """Groups with members in flight, in order of dispatch, and those members."""
        running = [d for d in self.dispatches.values() if self._groups[d.group_id] == "running"]
        return [(d, [i for i in d.rollout_ids if self._state[i][0] == "in_flight"]) for d in running]

    def _get(self, rollout_id: str) -> tuple[str, str | int]:
        if rollout_id not in self._state:
            raise LedgerError(f"rollout {rollout_id} was never dispatched")
        return self._state[rollout_id]

    def _expect(self, rollout_ids: Iterable[str], allowed: set[str]) -> None:
        for rollout_id in rollout_ids:
            state, _ = self._get(rollout_id)
            if state not in allowed:
                raise LedgerError(f"rollout {rollout_id} is {state}, not {' or '.join(sorted(allowed))}")

    def _move(self, rollout_ids: Iterable[str], state: str, detail: str | int = "") -> None:
        touched: dict[str, None] = {}
        for rollout_id in rollout_ids:
            self._set(rollout_id, state, detail)
            touched[self._group_of[rollout_id]] = None
        for group_id in touched:
            self._regroup(group_id)

    def _set(self, rollout_id: str, state: str, detail: str | int = "") -> None:
        if rollout_id in self._state:
            old, old_detail = self._state[rollout_id]
            self._rollouts[old, _reason(old_detail)] -= 1
        self._state[rollout_id] = (state, detail)
        self._rollouts[state, _reason(detail)] += 1

    def _regroup(self, group_id: str) -> None:
        dispatch = self.dispatches[group_id]
        states = Counter(self._state[i][0] for i in dispatch.rollout_ids)
        new: GroupState = "lost"
        if states["in_flight"]:
            new = "running"
        elif states["trained"]:
            new = "trained"
        elif states["ready"] >= dispatch.min_valid:
            new = "ready"
        old = self._groups.get(group_id)
        if old is not None:
            self._group_counts[old, dispatch.family] -= 1
        self._groups[group_id] = new
        self._group_counts[new, dispatch.family] += 1


def _reason(detail: str | int) -> str:
    return detail if isinstance(detail, str) else ""  # training steps are not counted one by one
