"""Task workers as the orchestrator keeps them: real processes that are ended, well and badly, and one that cannot live."""

import asyncio
import json
import os
import signal
import time
import urllib.request

import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.engines import Servers
from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.pipeline.job import FamilyShare, Job
from arcforge.pipeline.task_workers import MOST_SHORT_LIVES, TaskWorkers


def job_of(folder, family):
    Tokenizer.train(["reason about the sum of two numbers"] * 4, 290).save(folder / "tokenizer")
    job = Job(
        stage="agentic_rl",
        families=(FamilyShare(name=family),),
        servers=Servers(urls=("http://127.0.0.1:9",)),
        tokenizer=folder / "tokenizer",
        buffer=folder,
        weights=folder,
        folder=folder,
        events=folder / "events.jsonl",
        context=256,
        batch=1,
        max_staleness=1,
        concurrency=4,
        base_version=0,
        seed=0,
    )
    atomic_write(folder / "job.json", job.model_dump_json())
    return job


async def until(condition):
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def pid_of(workers):
    return workers._launcher.component("task-reason").process.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_is_started_again(tmp_path, number):
    job, events = job_of(tmp_path, "reason"), []
    file = job.address_file("reason")

    async def play():
        with TaskWorkers(tmp_path / "job.json", job, events.append) as workers:
            supervising = asyncio.create_task(workers.supervise())
            await until(file.exists)
            first, address = pid_of(workers), file.read_text()
            os.kill(first, number)
            await until(lambda: file.exists() and file.read_text() != address)
            assert pid_of(workers) != first
            with urllib.request.urlopen(f"{file.read_text()}/health", timeout=20) as answer:
                assert json.load(answer) == {"family": "reason", "running": 0, "done": 0}
            supervising.cancel()

    asyncio.run(play())
    assert [row["kind"] for row in events] == ["worker_restart"] and events[0]["family"] == "reason"


def test_one_that_cannot_live_ends_the_run_with_its_reason(tmp_path):
    job, events = job_of(tmp_path, "nonsense"), []

    async def play():
        with TaskWorkers(tmp_path / "job.json", job, events.append) as workers:
            await asyncio.wait_for(workers.supervise(), 60)

    with pytest.raises(UserError, match=r"the worker of nonsense does not stay alive: .*task family 'nonsense'"):
        asyncio.run(play())
    assert len(events) == MOST_SHORT_LIVES
