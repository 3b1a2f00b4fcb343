"""The multi-task orchestrator (GLM-5 report, section 4.1.1): keeps rollouts running, in ratio, within what the trainer
can still use, and writes every one of them down.

One loop: follow the published weights -> admit groups -> collect finished rollouts -> beat. It knows rollouts and a
buffer, not the trainer: the two meet in the buffer's files and in the published weights.

    capacity   groups that may still be admitted: (max_staleness + version + 1) * batch - (accepted + running)
    ratios     the family furthest below its target share of groups that are of use goes next: one whose groups fail or go
               stale is dispatched more often, so that its share of what is trained holds
    pace       rollouts at once fall while finished batches wait, and rise while the trainer does
    tasks      the n-th dispatch of a family is a pure function of (seed, family, n)
    resume     counters and unfinished members come from the buffer's ledger
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcforge.core.config import Config
from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.tasks import Split
from arcforge.core.trajectory import Trajectory
from arcforge.launch.heartbeat import Heartbeat
from arcforge.rl.buffer import BufferWriter
from arcforge.rl.ledger import Counts, Dispatch, GroupState
from arcforge.rl.pace import Pace
from arcforge.rl.publish import Published, latest
from arcforge.rl.runners import Order, Runner

POLL_SECONDS = 0.05
DRAIN_SECONDS = 5.0
SIGNAL_DRAIN_SECONDS = 0.5
UPDATE_TRIES = 5
MOST_EXTRA = 2
"""How many times its share a family is dispatched at most to make up for what fails or goes stale."""


class OrchestratorConfig(Config):
    """batch: groups that the trainer consumes per published version. max_staleness: versions a rollout may lag behind;
    0 makes the run synchronous. concurrency: rollouts at once. failure_limit: failed rollouts in a row that end the run.
    """

    batch: int
    max_staleness: int = 2
    concurrency: int = 32
    failure_limit: int = 64
    seed: int = 0


@dataclass(frozen=True)
class TaskEntry:
    """A registered task family. ratio: its part of the groups, relative to the others. indices: tasks to choose from.

    concurrency: rollouts of this family at once. timeout: seconds per rollout.
    """

    runner: Runner
    ratio: float = 1.0
    group_size: int = 8
    concurrency: int = 1_000_000
    timeout: float = 600.0
    temperature: float = 1.0
    split: Split = "train"
    indices: Sequence[int] = field(default_factory=lambda: range(1 << 31))


class TooManyFailures(BoundaryError):
    """Nothing but failures: the run is stopped rather than burning tasks. boundary: that of the last failure."""


def capacity(max_staleness: int, version: int, batch: int, accepted: int, running: int) -> int:
    """How many more groups may be admitted so that none is trained more than `max_staleness` versions late (AReaL)."""
    return (max_staleness + version + 1) * batch - (accepted + running)


def choose_family(shares: dict[str, float], useful: dict[str, int], open_families: Sequence[str]) -> str | None:
    """The open family whose useful groups fall furthest below its share after one more dispatch; first wins ties.

    shares: target shares by family, summing to 1. A family that is not open now catches up when it is open again.
    """
    total = sum(useful.values()) + 1
    return max(open_families, key=lambda name: shares[name] * total - useful.get(name, 0), default=None)


def choose_index(seed: int, family: str, dispatch: int, indices: Sequence[int]) -> int:
    """The task of a family's `dispatch`-th group: every index once, in an order of its own, before any comes again."""
    epoch, position = divmod(dispatch, len(indices))
    rng = random.Random(f"{seed}/{family}/{epoch}")
    offset, stride = rng.randrange(len(indices)), rng.randrange(1, len(indices) + 1)
    while math.gcd(stride, len(indices)) != 1:
        stride += 1
    return indices[(offset + stride * position) % len(indices)]


class MultiTaskOrchestrator:
    """`run()` until the stop file appears, `stop()` is called or the failure limit is reached.

    weights: folder of `publish.Publisher`. on_publish: awaited with each new version before rollouts are admitted under
    it (loads the weights into the engines). base_version: the version published when the stage began. observe: receives
    event rows, to which the caller adds the stage. heartbeat: touched once per turn. stop_file: ends the loop.
    """

    def __init__(
        self,
        entries: Sequence[TaskEntry],
        buffer: BufferWriter,
        weights: Path,
        config: OrchestratorConfig,
        *,
        stop_file: Path,
        heartbeat: Path,
        base_version: int = 0,
        on_publish: Callable[[Published], Awaitable[None]] | None = None,
        observe: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        if not entries or any(entry.ratio <= 0 or entry.group_size < 1 or not entry.indices for entry in entries):
            raise UserError("the orchestrator needs at least one task family; ratios, group sizes and indices above 0")
        self._entries = {entry.runner.name: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise UserError("a task family is registered twice; give it one entry with the sum of the ratios")
        total = sum(entry.ratio for entry in entries)
        self._shares = {entry.runner.name: entry.ratio / total for entry in entries}
        self._buffer, self._weights, self._config = buffer, weights, config
        self._stop_file, self._heartbeat, self._base_version = stop_file, Heartbeat(heartbeat), base_version
        self._on_publish, self._observe = on_publish, observe
        self._version, self._stopping, self._waiting, self._failures_in_a_row = -1, False, False, 0
        self._drain_seconds = DRAIN_SECONDS
        self._running: dict[asyncio.Task[Trajectory], str] = {}
        self._dispatched: Counter[str] = Counter(d.family for d in buffer.ledger.dispatches.values())
        self._pace = Pace(config.concurrency, config.batch)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._family_slots = {name: asyncio.Semaphore(entry.concurrency) for name, entry in self._entries.items()}

    def stop(self, drain: float = DRAIN_SECONDS) -> None:
        """Admit nothing more and leave the loop. Rollouts that still run after `drain` seconds stay in flight in the ledger,
        for a resume."""
        self._stopping, self._drain_seconds = True, drain

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT stop the orchestrator in order. Main thread, inside the running loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop, SIGNAL_DRAIN_SECONDS)

    async def run(self) -> Counts:
        """Raises TooManyFailures, or what `on_publish` raised after its last try. Returns the books."""
        resumed = False
        try:
            while not self._stopped():
                self._buffer.poll()
                await self._follow()
                if self._version >= 0:
                    resumed = resumed or self._resume()
                    self._admit()
                await self._collect(POLL_SECONDS)
                self._heartbeat.beat()
            await self._drain()
        finally:
            await self._cancel()
        self._buffer.poll()
        return self._buffer.ledger.counts()

    def _stopped(self) -> bool:
        return self._stopping or self._stop_file.exists()

    async def _follow(self) -> None:
        """Take up a newly published version; the engines have it before anything is admitted under it."""
        newest = latest(self._weights)
        if newest is None or newest.version == self._version:
            return
        for tries in range(1, UPDATE_TRIES + 1):
            try:
                if self._on_publish is not None:
                    await self._on_publish(newest)
                break
            except BoundaryError as error:
                self._event("failure", boundary=error.boundary, reason=str(error), version=newest.version)
                if tries == UPDATE_TRIES:
                    raise
                await asyncio.sleep(POLL_SECONDS * 2**tries)
        self._version = newest.version
        self._event("update", version=newest.version)

    def _resume(self) -> bool:
        """Start again what a killed orchestrator left unfinished: same task, same ids, same seeds."""
        for dispatch, members in self._buffer.ledger.unfinished():
            if dispatch.family not in self._entries:
                raise UserError(f"the buffer holds rollouts of {dispatch.family!r}, which this run does not register")
            self._start(dispatch, members)
        return True

    def _admit(self) -> None:
        if self._pace.look(self._buffer.ledger.groups("ready"), time.monotonic()):
            self._event("pace", limit=self._pace.limit)
        while not self._stopped() and len(self._running) < self._pace.limit:
            blocked = self._capacity() <= 0
            if blocked != self._waiting:
                self._waiting = blocked
                self._event("wait_start" if blocked else "wait_end", **{"for": "trainer"})
            family = None if blocked else choose_family(self._shares, self._useful(), self._open_families())
            if family is None:
                return
            self._start_group(self._entries[family])

    def _capacity(self) -> int:
        """The version is the number of batches both consumed and published: a commit that is not yet published must not
        admit rollouts of the old weights, and versions lost to a resume are not counted twice."""
        ledger, config = self._buffer.ledger, self._config
        trained = ledger.groups("trained")
        version = min(trained // config.batch, self._version - self._base_version)
        running = ledger.groups("running")
        return capacity(config.max_staleness, version, config.batch, trained + ledger.groups("ready"), running)

    def _useful(self) -> dict[str, int]:
        """Groups by family that were or may still be trained, but at least 1 / MOST_EXTRA of those dispatched: a family that is
        broken must not take the places of the others."""
        ledger = self._buffer.ledger
        states: tuple[GroupState, ...] = ("running", "ready", "trained")
        useful = {name: sum(ledger.groups(state, name) for state in states) for name in self._entries}
        return {name: max(count, self._dispatched[name] // MOST_EXTRA) for name, count in useful.items()}

    def _open_families(self) -> list[str]:
        running = Counter(self._running.values())
        return [name for name, entry in self._entries.items() if running[name] < entry.concurrency]

    def _start_group(self, entry: TaskEntry) -> None:
        family, counter = entry.runner.name, len(self._buffer.ledger.dispatches)
        group_id = f"{family}-{counter:06d}"
        dispatch = Dispatch(
            counter=counter,
            group_id=group_id,
            family=family,
            index=choose_index(self._config.seed, family, self._dispatched[family], entry.indices),
            rollout_ids=tuple(f"{group_id}-{member}" for member in range(entry.group_size)),
            version=self._version,
        )
        self._buffer.dispatch(dispatch)
        self._dispatched[family] += 1
        self._start(dispatch, dispatch.rollout_ids)

    def _start(self, dispatch: Dispatch, members: Sequence[str]) -> None:
        for rollout_id in members:
            task = asyncio.create_task(self._rollout(dispatch, rollout_id), name=rollout_id)
            self._running[task] = dispatch.family

    async def _rollout(self, dispatch: Dispatch, rollout_id: str) -> Trajectory:
        """One member. Whatever goes wrong inside becomes its failure and nobody else's."""
        entry, member = self._entries[dispatch.family], dispatch.rollout_ids.index(rollout_id)
        seed = random.Random(f"{self._config.seed}/{rollout_id}").getrandbits(31)
        order = Order(
            family=dispatch.family,
            split=entry.split,
            index=dispatch.index,
            rollout_id=rollout_id,
            group_id=dispatch.group_id,
            attempt=member,
            seed=seed,
            temperature=entry.temperature,
            timeout=entry.timeout,
        )
        # The family's slot first: rollouts that wait for a narrow family must not hold the common ones.
        async with self._family_slots[dispatch.family], self._slots:
            started, version = time.time(), self._version
            trajectory = await entry.runner.run(order)
            update = {"rollout_id": rollout_id, "group_id": dispatch.group_id, "family": dispatch.family}
            times = {"started": trajectory.started or started, "finished": trajectory.finished or time.time()}
            numbers = {"attempt": member, "seed": seed, "dispatched_version": version}
            return trajectory.model_copy(update={**update, **times, **numbers})

    async def _collect(self, timeout: float) -> None:
        """Write down the rollouts that have finished; waits at most `timeout` seconds for the first."""
        if not self._running:
            await asyncio.sleep(timeout)
            return
        done, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda task: (task.result().finished, task.get_name())):
            del self._running[task]
            trajectory = task.result()
            self._buffer.finish(trajectory)
            self._watch(trajectory)

    def _watch(self, trajectory: Trajectory) -> None:
        if trajectory.failure is None:
            self._failures_in_a_row = 0
            return
        boundary, reason = trajectory.failure.boundary, trajectory.failure.reason
        self._event("failure", boundary=boundary, reason=reason, rollout=trajectory.rollout_id)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._config.failure_limit:
            error = TooManyFailures(f"{self._failures_in_a_row} rollouts failed in a row; the last one: {reason}")
            error.boundary = boundary
            raise error

    async def _drain(self) -> None:
        """Give running rollouts a moment to finish: what is written down needs no second run."""
        deadline = time.monotonic() + self._drain_seconds
        while self._running and time.monotonic() < deadline:
            await self._collect(POLL_SECONDS)
            self._heartbeat.beat()

    async def _cancel(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
        self._running.clear()

    def _event(self, kind: str, **values: Any) -> None:
        if self._observe is not None:
            self._observe({"who": "orchestrator", "kind": kind, **values})
