"""Task workers as real processes behind real sockets: killed, hung, asked for the wrong thing, and a thousand rollouts at once."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from arcforge.core.runs import atomic_write
from arcforge.launch.limits import raise_open_files
from arcforge.rl.buffer import BufferWriter
from arcforge.rl.orchestrator import MultiTaskOrchestrator, OrchestratorConfig, TaskEntry
from arcforge.rl.publish import Publisher
from arcforge.rl.runners import MOST_RUNS, Order, RemoteRunner

SCRIPT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_rollout_path import TOKENIZER, Lamps, sample_turn
from arcforge.clients.scripted import ScriptedTokenEngine
from arcforge.core.runs import atomic_write
from arcforge.launch.limits import raise_open_files
from arcforge.rl.gateway import Gateway
from arcforge.rl.runners import FamilyRunner
from arcforge.rl.task_worker import TaskWorker
from arcforge.rollout.attempt import attempt

class Slow(ScriptedTokenEngine):
    async def generate(self, prompt_ids, sampling, session=""):
        await asyncio.sleep(float(sys.argv[3]))
        return await super().generate(prompt_ids, sampling, session)

async def main():
    raise_open_files()
    gateway = Gateway(Slow(sample_turn), TOKENIZER, max_context=400)
    port = await TaskWorker(FamilyRunner(Lamps(), attempt, gateway)).start("127.0.0.1", 0)
    atomic_write(Path(sys.argv[2]), f"http://127.0.0.1:{port}")
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def worker(address_file, seconds):
    """A process that serves lamps, each turn of which takes `seconds`."""
    address_file.unlink(missing_ok=True)
    argv = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(address_file), str(seconds)]
    with subprocess.Popen(argv) as process:
        try:
            deadline = time.monotonic() + 30
            while not address_file.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def runner(address_file, name="lamp", **kwargs):
    return RemoteRunner(name, lambda: address_file.read_text() if address_file.exists() else None, **kwargs)


def order(number, family="lamp", timeout=20.0):
    name = f"lamp-{number}"
    return Order(
        family=family,
        split="train",
        index=number,
        rollout_id=name,
        group_id=name,
        attempt=0,
        seed=number,
        temperature=1.0,
        timeout=timeout,
    )


async def closing(made, *orders):
    try:
        return await asyncio.gather(*(made.run(one) for one in orders))
    finally:
        await made.close()


def test_a_killed_workers_rollouts_run_again_in_the_next_one(tmp_path):
    file = tmp_path / "address"

    async def play():
        with worker(file, 0.1):
            undisturbed = await closing(runner(file), *map(order, range(4)))
        with worker(file, 0.2) as first:
            running = asyncio.create_task(closing(runner(file), *map(order, range(4))))
            await asyncio.sleep(0.3)
            first.kill()
            await asyncio.sleep(0.1)
            assert not running.done()
        with worker(file, 0.1):
            return undisturbed, await running

    undisturbed, disturbed = asyncio.run(play())
    kept = [[(s.ids, s.logprobs, s.trained) for s in t.spans] for t in undisturbed]
    assert kept == [[(s.ids, s.logprobs, s.trained) for s in t.spans] for t in disturbed]
    assert all(t.valid for t in disturbed)


def test_a_worker_that_goes_away_late_is_waited_for_anew_and_not_for_ever(tmp_path):
    """Patience counts the time without a worker, not that of the rollout."""
    file = tmp_path / "address"

    async def play():
        with worker(file, 1.0) as first:
            running = asyncio.create_task(closing(runner(file, patience=0.8), order(1)))
            await asyncio.sleep(1.2)
            first.kill()
            await asyncio.to_thread(first.wait)
            file.unlink()
            await asyncio.sleep(0.3)
        with worker(file, 0.05):
            return (await running)[0]

    assert asyncio.run(asyncio.wait_for(play(), 60)).valid


def test_a_rollout_that_takes_every_worker_down_fails(tmp_path):
    async def play():
        hits = 0

        async def hang_up(reader, writer):
            nonlocal hits
            hits += 1
            await reader.readline()
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            (lost,) = await closing(RemoteRunner("lamp", lambda: address), order(1))
        return lost, hits

    lost, hits = asyncio.run(asyncio.wait_for(play(), 30))
    assert hits == MOST_RUNS and lost.reward is None
    assert lost.failure is not None and lost.failure.boundary == "task"
    assert f"{MOST_RUNS} workers of lamp went away under it" in lost.failure.reason


def test_no_worker_a_wrong_one_and_a_hung_one_are_failures_with_a_reason(tmp_path):
    file = tmp_path / "address"
    (gone,) = asyncio.run(closing(runner(file, patience=0.3), order(1)))
    assert gone.failure is not None and gone.failure.boundary == "task" and not gone.valid
    assert "no worker of lamp for 0.3 s: it did not start" in gone.failure.reason
    atomic_write(file, "http://127.0.0.1:9")
    (refused,) = asyncio.run(closing(runner(file, patience=0.3), order(1)))
    assert refused.failure is not None and "Cannot connect" in refused.failure.reason
    with worker(file, 30):
        (wrong,) = asyncio.run(closing(runner(file, "door"), order(1, "door")))
        (late,) = asyncio.run(closing(runner(file), order(1, timeout=0.2)))
    assert wrong.failure is not None and "404" in wrong.failure.reason
    assert late.failure is not None and late.failure.boundary == "timeout" and late.reward is None


@pytest.mark.slow
def test_a_thousand_rollouts_at_once(tmp_path):
    raise_open_files()
    file, most = tmp_path / "address", 1200
    Publisher(tmp_path / "weights").publish(0, lambda folder: None)

    async def play(address):
        buffer, peak = BufferWriter(tmp_path, "agentic"), 0
        orchestrator = MultiTaskOrchestrator(
            [TaskEntry(runner(file), group_size=8, timeout=60)],
            buffer,
            tmp_path / "weights",
            OrchestratorConfig(batch=300, max_staleness=0, concurrency=most),
            stop_file=tmp_path / "stop",
            heartbeat=tmp_path / "beat",
        )
        running = asyncio.create_task(orchestrator.run())
        deadline = time.monotonic() + 60
        while buffer.ledger.counts().ready < 2000:
            assert not running.done() and time.monotonic() < deadline
            peak = max(peak, await asyncio.to_thread(health, address))
            await asyncio.sleep(0.1)
        (tmp_path / "stop").touch()
        return await running, peak

    with worker(file, 1.2):
        counts, peak = asyncio.run(play(file.read_text()))
    assert 1000 < peak <= most
    assert counts.balanced and counts.ready >= 2000 and sum(counts.failed.values()) <= 1  # the lamps' one broken wire


def health(address):
    with urllib.request.urlopen(f"{address}/health", timeout=20) as answer:
        return json.load(answer)["running"]
