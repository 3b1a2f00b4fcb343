"""Kills at random moments of agentic RL: trainer, engine, orchestrator or task worker. A worker is started again within the run; for
the others the same command goes on. No finished rollout is lost, none is trained twice, and what was trained can be replayed to
the bit."""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import tomli_w
from test_resume import rollouts
from tinyrun import ARCFORGE, command_of, descendants

from arcforge.core.runs import read_jsonl
from arcforge.rl.appendlog import RowTail
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rl.replay import commits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")

MODULES = {
    "engine": "arcforge.serve.main",
    "orchestrator": "arcforge.pipeline.orchestrator",
    "worker": "arcforge.pipeline.task_worker",
}
LONGEST_LIFE = 2.0  # seconds between a moment and the kill


def process_of(run, part):
    found = [pid for pid in descendants(run.process.pid) if MODULES[part] in command_of(pid)]
    return found[0] if found else None


def written(run):
    """Rows that the trainer wrote."""
    return RowTail(BufferFiles(run.folder / "trajectories", "agentic_rl").consumed).poll()


def one_life(run, part, moment, seconds):
    """Start, wait until the run has come to a moment and then `seconds`, kill one part, and see that nothing is left."""
    steps, ids = len(written(run)), len(rollouts(run))
    reached = {
        "started": lambda: process_of(run, "orchestrator") is not None,
        "rollout": lambda: len(rollouts(run)) > ids,
        "step": lambda: len(written(run)) > steps,
    }[moment]
    run.start().until(reached)
    time.sleep(seconds)
    if part == "worker":
        the_worker_is_replaced(run)
    if part in ("trainer", "worker"):
        run.kill()
        return
    os.kill(process_of(run, part), signal.SIGKILL)
    assert run.process.wait(60) == 2, run.log.read_text()
    last = run.log.read_text().splitlines()[-1]
    assert "ended with code -9" in last and "the same command continues" in last


def the_worker_is_replaced(run):
    """Killed, it is started again by the orchestrator, and rollouts go on to finish in the same run."""
    run.until(lambda: process_of(run, "worker") is not None)
    old, restarts = process_of(run, "worker"), len(worker_restarts(run))
    os.kill(old, signal.SIGKILL)
    run.until(lambda: len(worker_restarts(run)) > restarts and process_of(run, "worker") not in (None, old))
    ids = len(rollouts(run))
    run.until(lambda: len(rollouts(run)) > ids + 4)
    assert "ended with code -9" in worker_restarts(run)[-1]["reason"]


def worker_restarts(run):
    return [row for row in read_jsonl(run.folder / "events.jsonl") if row["kind"] == "worker_restart"]


def check(run, finished):
    """The books after a life; the rollouts written down by now."""
    ids, books = rollouts(run), read_ledger(run.folder / "trajectories", "agentic_rl")
    counts = books.counts()
    assert counts.balanced and not counts.failed and set(counts.dropped) <= {"stale", "too_few_valid"}, counts
    assert len(ids) == len(set(ids)) and finished <= set(ids)
    trained = [rollout_id for step in commits(written(run)).values() for rollout_id in step]
    assert len(trained) == len(set(trained)) == counts.trained and set(trained) <= set(ids)
    return set(ids)


def chaos(run, kills, seed):
    rng, finished = random.Random(seed), set()
    parts, moments = ["trainer", "engine", "orchestrator", "worker"], ["step", "rollout", "step", "started", "rollout"]
    for number in range(kills):
        part = parts[number] if number < len(parts) else rng.choice(parts)
        one_life(run, part, moments[number % len(moments)], rng.uniform(0, LONGEST_LIFE))
        assert "Traceback" not in run.log.read_text()
        finished = check(run, finished)
    assert len(commits(written(run))) > 1
    command = [*ARCFORGE, "rl", "replay", str(run.folder)]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0 and "every bit equal" in told.stdout, told.stderr


def endless(copy_of_reference):
    """A run whose agentic stage outlives every test."""
    run, steps = copy_of_reference(), 10_000
    run.overrides = (f"agentic_rl.steps={steps}",)
    config = run.folder / "config.toml"
    values = tomllib.loads(config.read_text())
    values["agentic_rl"]["steps"] = steps
    values["run"]["folder"] = str(run.folder)
    config.write_text(tomli_w.dumps(values))
    return run


def test_five_kills(copy_of_reference):
    chaos(endless(copy_of_reference), kills=5, seed=1)


@pytest.mark.slow
def test_thirty_kills(copy_of_reference):
    chaos(endless(copy_of_reference), kills=30, seed=2)
