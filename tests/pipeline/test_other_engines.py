"""Agentic RL on servers that somebody else started, and evaluation beside it: real processes and sockets."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

from arcforge.launch.local import free_port
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rl.publish import latest
from arcforge.rollout.record import read_trajectories

STEPS, EVERY = 4, 2


@contextmanager
def serving(checkpoint, log):
    """A server that is nobody's child but ours; yields its address."""
    command = [sys.executable, "-m", "arcforge.serve.main", str(checkpoint), "--port", "0", "--max-length", "384"]
    with (
        open(log, "wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.kill()


def short(run, *overrides):
    """With few steps of agentic RL; a run folder goes on with its own recipe alone, so this one begins anew."""
    (run.folder / "config.toml").unlink()
    run.overrides = (f"agentic_rl.steps={STEPS}", f"agentic_rl.evaluate_every={EVERY}", *overrides)
    return run


@pytest.mark.parametrize("kind", ["sglang", pytest.param("vllm", marks=pytest.mark.slow)])
def test_a_run_on_servers_of_another_kind_with_evaluation_beside_it(kind, copy_of_reference, tmp_path):
    run = short(copy_of_reference())
    with serving(run.stage("reasoning_rl") / "checkpoint", tmp_path / "server.log") as url:
        run.overrides += (f"agentic_rl.engines=['{kind}:{url}']",)
        run.start().until_done("agentic_rl").kill()
        label = httpx.get(f"{url}/weight_info", trust_env=False).json()["weight_version"]
    stage = run.stage("agentic_rl")
    assert latest(stage / "weights").version == STEPS
    assert int(label) in (STEPS - 1, STEPS), "nobody samples under the last version, so it need not be loaded"
    assert not list((stage / "logs").glob("engine-*")), "the stage started an engine of its own"
    trajectories = read_trajectories(BufferFiles(run.folder / "trajectories", "agentic_rl").trajectories)
    versions = {span.version for t in trajectories for span in t.spans if span.source == "model"}
    assert len(versions) > 1 and versions <= set(range(STEPS + 1))
    counts = read_ledger(run.folder / "trajectories", "agentic_rl").counts()
    assert counts.balanced and not counts.failed
    assert [row["step"] for row in run.rows("agentic_rl")] == [1, 2, 3, 4]
    evaluated = run.rows("agentic_rl_evaluation")
    assert [(row["step"], row["version"]) for row in evaluated] == [(0, 0), (2, 2), (4, 4)]
    assert all(0 <= row["low/swe"] <= row["reward/swe"] <= row["high/swe"] <= 1 for row in evaluated)
    assert all(row["tasks/swe"] == 2 for row in evaluated)
    assert not [path for path in (stage / "pinned").iterdir() if path.is_dir()], "weights are let go when evaluated"


def test_a_server_that_is_not_there_is_said_before_anything_starts(copy_of_reference):
    run, address = copy_of_reference(), f"http://127.0.0.1:{free_port()}"
    run.overrides = (f"agentic_rl.engines=['vllm:{address}']",)
    started = time.monotonic()
    assert run.start().process.wait(60) == 2 and time.monotonic() - started < 60
    (line,) = [line for line in run.log.read_text().splitlines() if "agentic_rl.engines" in line]
    assert f"no healthy vllm server answers at {address}" in line
    assert not (run.stage("agentic_rl") / "job.json").exists()


@pytest.mark.slow
def test_an_evaluation_that_was_killed_is_made_again(copy_of_reference):
    """Everything dies while a version is pinned; the same command evaluates every version once."""
    run = short(copy_of_reference(), "evaluate.tasks=24")
    run.start().until(lambda: any(run.folder.glob("stages/*-agentic_rl/pinned/0/pin.json"))).kill()
    run.start().until_done("agentic_rl").kill()
    rows = run.rows("agentic_rl_evaluation")
    assert sorted(row["step"] for row in rows) == [0, 2, 4] and len({row["version"] for row in rows}) == 3
    told = [json.loads(path.read_text()) for path in (run.stage("agentic_rl") / "pinned").glob("*.told.json")]
    assert sorted(row["step"] for row in told) == [0, 2, 4] and all(row["tasks/swe"] == 24 for row in told)
