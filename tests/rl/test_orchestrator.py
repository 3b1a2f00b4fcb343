"""The orchestrator with a simulated trainer on the other side of the buffer and rollouts that take a moment."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcforge.core.errors import EngineError, Failure, ToolError, UserError
from arcforge.core.messages import Thinking
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rl.buffer import BufferFiles, BufferReader, BufferWriter, read_ledger
from arcforge.rl.orchestrator import (
    MultiTaskOrchestrator,
    OrchestratorConfig,
    TaskEntry,
    TooManyFailures,
    capacity,
    choose_family,
    choose_index,
)
from arcforge.rl.publish import Publisher, latest
from arcforge.rl.runners import FamilyRunner
from arcforge.rollout.record import read_trajectories


class Problem:
    domain, messages, tools, thinking, max_turns, max_tokens = "", (), (), Thinking(), 1, 1

    def __init__(self, family, index):
        self.family, self.task_id = family, f"{family}/{index}"


class Problems:
    domains = ()

    def __init__(self, name, broken=False):
        self.name, self.broken = name, broken

    def task(self, split, index):
        if self.broken:
            raise KeyError("no such template")
        return Problem(self.name, index)


class World:
    """A stage's folder, its publisher, and rollouts whose length, failures and engine version are under control."""

    def __init__(self, folder, entries=None, **config):
        self.folder, self.events = folder, []
        self.publisher = Publisher(folder / "weights")
        if latest(folder / "weights") is None:
            self.publish(0)
        self.entries = entries or [TaskEntry(Problems("reason"), group_size=2)]
        self.config = OrchestratorConfig(**{"batch": 2, "max_staleness": 1, "concurrency": 6, **config})
        self.engine_version, self.running, self.peak, self.seen, self.seconds = -1, Counter(), Counter(), [], 0.002
        self.failing = lambda rollout_id: None

    def publish(self, version):
        self.publisher.publish(version, lambda folder: (folder / "w").write_text(str(version)))

    async def load(self, published):
        self.engine_version = int((published.folder / "w").read_text())

    async def attempt(self, task, door, *, rollout_id, group_id, attempt, seed, temperature, timeout):
        self.seen.append((rollout_id, task.task_id, seed))
        self.running.update([task.family, "all"])
        self.peak |= self.running
        version, failure = self.engine_version, self.failing(rollout_id)
        try:
            await asyncio.sleep(random.Random(seed).uniform(0, 2 * self.seconds))
        finally:
            self.running.subtract([task.family, "all"])
        if isinstance(failure, Exception):
            raise failure
        return Trajectory(
            rollout_id=rollout_id,
            family=task.family,
            task_id=task.task_id,
            spans=[TokenSpan(ids=[1], source="model", logprobs=[-0.1], version=version, trained=True)],
            reward=None if failure else float(attempt % 2),
            failure=failure,
        )

    def orchestrator(self, **kwargs):
        # The rollouts above talk to no model.
        runners = [replace(entry, runner=FamilyRunner(entry.runner, self.attempt, door=None)) for entry in self.entries]
        return MultiTaskOrchestrator(
            runners,
            buffer=BufferWriter(self.folder, "rl"),
            weights=self.folder / "weights",
            config=self.config,
            stop_file=self.folder / "stop",
            heartbeat=self.folder / "beat",
            on_publish=self.load,
            observe=self.events.append,
            **kwargs,
        )

    async def train(self, steps, orchestrator, reader, on_step=lambda step, groups: None):
        """A trainer: takes batches, commits, publishes; then stops the orchestrator by the stop file."""
        deadline = time.monotonic() + 20
        step = reader.ledger.step
        while step < steps and time.monotonic() < deadline:
            groups = reader.take(self.config.batch, step, lambda family: self.config.max_staleness)
            if groups:
                step += 1
                on_step(step, groups)
                reader.commit(step, [t.rollout_id for g in groups for t in g.members])
                self.publish(step)
            await asyncio.sleep(0.001)
        (self.folder / "stop").touch()
        assert step == steps, "the trainer starved"

    def play(self, steps, **kwargs):
        async def both():
            orchestrator, reader = self.orchestrator(), BufferReader(self.folder, "rl")
            _, counts = await asyncio.gather(self.train(steps, orchestrator, reader, **kwargs), orchestrator.run())
            return counts

        return asyncio.run(both())


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_every_rollout_is_counted_and_none_is_staler_than_allowed(tmp_path, max_staleness):
    world = World(tmp_path, max_staleness=max_staleness)
    ages = []

    def on_step(step, groups):
        ages.extend(step - 1 - t.versions[0] for g in groups for t in g.members)

    counts = world.play(steps=8, on_step=on_step)
    assert counts.balanced and counts.trained == 8 * 2 * 2 and not counts.dropped
    assert max(ages) <= max_staleness and (max_staleness == 0) == (max(ages) == 0)
    assert counts.dispatched == len(world.seen) == len({rollout for rollout, _, _ in world.seen})
    ledger = read_ledger(tmp_path, "rl")
    admitted = sum(ledger.groups(state) for state in ("running", "ready", "trained"))
    assert admitted <= (max_staleness + 8 + 1) * 2
    waits = [event["kind"] for event in world.events if event["kind"].startswith("wait")]
    assert (waits or max_staleness) and waits[::2] == ["wait_start"] * len(waits[::2])
    updates = [event["version"] for event in world.events if event["kind"] == "update"]
    assert updates[0] == 0 and updates == sorted(set(updates)) and len(updates) > 1


def test_concurrency_is_filled_and_never_exceeded(tmp_path):
    entries = [TaskEntry(Problems("fast"), group_size=4), TaskEntry(Problems("narrow"), group_size=4, concurrency=2)]
    world = World(tmp_path, entries, batch=8, concurrency=6)
    world.play(steps=3)
    assert world.peak["all"] == 6 and world.peak["narrow"] == 2


def test_ratios_hold_and_a_family_that_was_full_catches_up(tmp_path):
    entries = [TaskEntry(Problems("a"), ratio=3, group_size=2), TaskEntry(Problems("b"), ratio=1, group_size=2)]
    World(tmp_path, entries, batch=4).play(steps=6)
    families = Counter(d.family for d in read_ledger(tmp_path, "rl").dispatches.values())
    assert abs(families["a"] - 3 * families["b"]) <= 3


def test_a_family_that_loses_groups_is_dispatched_more_but_not_without_bound(tmp_path):
    entries = [TaskEntry(Problems(name), group_size=2) for name in ("steady", "shaky", "broken")]
    world = World(tmp_path, entries, batch=6, concurrency=12, failure_limit=10**6)
    lost = lambda i: i.startswith("broken") or (i.startswith("shaky") and int(i.split("-")[1]) % 3 == 0)  # noqa: E731
    world.failing = lambda i: Failure(boundary="tool", reason="it broke") if lost(i) else None
    world.play(steps=15)
    books = read_ledger(tmp_path, "rl")
    trained = {name: books.groups("trained", name) for name in ("steady", "shaky", "broken")}
    dispatched = Counter(dispatch.family for dispatch in books.dispatches.values())
    assert trained["broken"] == 0 and trained["shaky"] > 0.8 * trained["steady"]
    assert dispatched["shaky"] > 1.2 * dispatched["steady"]
    assert dispatched["broken"] < 2.3 * dispatched["steady"]


def test_failures_are_counted_by_their_boundary_and_stop_nobody_else(tmp_path):
    world = World(tmp_path, [TaskEntry(Problems("good"), group_size=3), TaskEntry(Problems("bad", broken=True))])
    failures = {
        "0": Failure(boundary="sandbox", reason="gone"),
        "1": ToolError("broken pipe"),
        "2": ZeroDivisionError("in a grader"),
    }
    world.failing = lambda rollout_id: failures[rollout_id[-1]] if rollout_id.startswith("good-000000") else None
    counts = world.play(steps=3)
    assert counts.balanced and counts.failed["sandbox"] == 1 and counts.failed["tool"] == 1
    bad = [t for t in read_trajectories(BufferFiles(tmp_path, "rl").trajectories) if t.family == "bad"]
    assert bad and all(t.failure.boundary == "task" and "no such template" in t.failure.reason for t in bad)
    assert counts.failed["task"] == 1 + len(bad) and counts.trained == 3 * 2 * 3
    assert all(t.reward is None for t in bad)


def test_nothing_but_failures_ends_the_run_with_the_reason(tmp_path):
    world = World(tmp_path, failure_limit=5)
    world.failing = lambda rollout_id: EngineError("connection refused")
    with pytest.raises(TooManyFailures, match=r"5 rollouts failed in a row.*connection refused") as caught:
        world.play(steps=1)
    assert caught.value.boundary == "engine"


def test_an_attempt_that_ignores_its_timeout_is_ended(tmp_path):
    world = World(tmp_path, [TaskEntry(Problems("slow"), group_size=1, timeout=0.01)], failure_limit=2)
    world.seconds = 30
    with pytest.raises(TooManyFailures, match="did not end at its timeout"):
        asyncio.run(world.orchestrator().run())


def test_weights_that_cannot_be_loaded_are_tried_again_then_end_the_run(tmp_path):
    world = World(tmp_path)
    tries = []

    async def flaky(published):
        tries.append(published.version)
        if len(tries) < 3:
            raise EngineError("busy")
        world.engine_version = published.version

    world.load = flaky
    assert world.play(steps=1).trained == 4 and tries[:3] == [0, 0, 0]

    async def never(published):
        raise EngineError("down")

    world.load = never
    (tmp_path / "stop").unlink()
    for file in tmp_path.glob("rl-*"):
        file.unlink()
    with pytest.raises(EngineError, match="down"):
        asyncio.run(world.orchestrator().run())


def test_a_stop_lets_short_rollouts_finish_and_a_resume_goes_on_where_it_was(tmp_path):
    world = World(tmp_path, concurrency=4, batch=50)

    async def cut_off():
        orchestrator, enough = world.orchestrator(), len(world.seen) + 8

        async def stop_after_a_while():
            while len(world.seen) < enough:
                await asyncio.sleep(0.01)
            orchestrator.stop()

        async with asyncio.timeout(20):
            _, counts = await asyncio.gather(stop_after_a_while(), orchestrator.run())
        return counts

    counts = asyncio.run(cut_off())
    assert counts.in_flight == 0 and counts.ready == counts.dispatched >= 8 and (tmp_path / "beat").exists()
    first = list(world.seen)
    asyncio.run(cut_off())
    numbers = [d.counter for d in read_ledger(tmp_path, "rl").dispatches.values()]
    assert numbers == list(range(len(numbers))) and len(world.seen) > len(first)
    assert len({task for _, task, _ in world.seen}) == len(numbers)


def test_the_same_seed_dispatches_the_same_work(tmp_path):
    plans = []
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        world = World(tmp_path / name, seed=seed, max_staleness=0)
        world.play(steps=4)
        plans.append(sorted(world.seen)[:16])
    assert plans[0] == plans[1] != plans[2]


def test_registering_nonsense_is_refused_in_one_line(tmp_path):
    for number, entries in enumerate(
        [[TaskEntry(Problems("a"), ratio=0)], [TaskEntry(Problems("a")), TaskEntry(Problems("a"))]]
    ):
        with pytest.raises(UserError):
            World(tmp_path / str(number), entries).orchestrator()


def test_capacity_formula():
    assert capacity(max_staleness=2, version=3, batch=4, accepted=10, running=5) == 9
    assert capacity(max_staleness=0, version=0, batch=4, accepted=1, running=3) == 0


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=6), st.integers(1, 200))
def test_deficit_dispatch_never_strays_a_whole_group_per_family(ratios, total):
    shares = {str(i): ratio / sum(ratios) for i, ratio in enumerate(ratios)}
    counts = Counter()
    for _ in range(total):
        counts[choose_family(shares, counts, list(shares))] += 1
    assert all(counts[name] - share * total < 1 + 1e-9 for name, share in shares.items())
    assert choose_family(shares, counts, []) is None


@given(st.integers(0, 1000), st.integers(1, 60))
def test_every_task_comes_once_per_epoch(seed, size):
    indices = [7 * i for i in range(size)]
    for epoch in range(2):
        dispatches = range(epoch * size, (epoch + 1) * size)
        assert sorted(choose_index(seed, "f", n, indices) for n in dispatches) == indices
    assert choose_index(seed, "f", 5, range(1 << 31)) == choose_index(seed, "f", 5, range(1 << 31))


COMPONENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_orchestrator import World

async def main():
    world = World(Path(sys.argv[1]), batch=10**6)
    world.seconds = 0.02
    orchestrator = world.orchestrator()
    orchestrator.stop_on_signals()
    await orchestrator.run()

asyncio.run(main())
"""


def test_killed_and_terminated_orchestrators_lose_nothing(tmp_path):
    for round_, number in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)):
        argv = [sys.executable, "-c", COMPONENT, str(tmp_path), str(Path(__file__).parent)]
        before = read_ledger(tmp_path, "rl").counts()
        with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 30
            while read_ledger(tmp_path, "rl").counts().ready < before.ready + 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.013 * round_)
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            assert process.returncode == (0 if number == signal.SIGTERM else -number), process.stderr.read()
        after = read_ledger(tmp_path, "rl").counts()
        assert after.balanced and after.ready >= before.ready + 12
    assert after.in_flight == 0
    rows = [json.loads(line) for line in BufferFiles(tmp_path, "rl").dispatched.read_bytes().splitlines()]
    assert [row["counter"] for row in rows] == list(range(len(rows)))
    assert len({row["index"] for row in rows}) == len(rows)
    assert os.path.getsize(BufferFiles(tmp_path, "rl").trajectories) > 0
