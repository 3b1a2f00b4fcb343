"""Runs that are killed or interrupted, and started again with the same command."""

import itertools
import os
import signal
import sys
import time

import pytest
from tinyrun import command_of, descendants

from arcforge.pipeline.run import HALF_WRITTEN
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rl.publish import latest
from arcforge.rollout.record import read_trajectories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")

TRAINED = ("pretrain", "midtrain", "sparse", "sft", "reasoning_rl")
STEPS = 8


def ends():
    """(phase, step after which it ends, how): each start continues the one before."""
    return (
        ("pretrain", 3, killed),
        ("midtrain-256", 1, killed),
        ("sft", 2, killed),
        ("reasoning_rl", 1, killed),
        ("reasoning_rl", 3, interrupted),
    )


def test_a_run_that_was_ended_five_times_has_the_bits_of_one_that_was_not(reference, copy_of_reference):
    run = copy_of_reference(stages=1)
    for path in (run.folder / "metrics.jsonl", run.folder / "trajectories" / "reasoning_rl-0.jsonl.zst"):
        path.unlink()
    for phase, step, end in ends():
        stage = phase.partition("-")[0]
        run.start().until_step(phase, step).until(lambda stage=stage: any(run.stage(stage).glob("trainer/*.pt")))
        end(run)
        assert "Traceback" not in run.log.read_text()
        assert not run.done(stage)
    run.start().until_done("reasoning_rl").kill()
    for phase in dict.fromkeys(phase for phase, _, _ in ends()):
        steps = [row["step"] for row in run.rows(phase)]
        assert all(after >= before for before, after in itertools.pairwise(steps)), f"{phase} began again: {steps}"
        assert max(steps) == max(row["step"] for row in reference.rows(phase))
    for stage in TRAINED:
        assert run.weights(stage) == reference.weights(stage), stage
        assert not (run.stage(stage) / "trainer").exists()
    assert not [path for path in (run.folder / "stages").rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]


def test_agentic_rl_that_is_ended_three_times_loses_no_finished_rollout(copy_of_reference):
    run = copy_of_reference()
    buffer = BufferFiles(run.folder / "trajectories", "agentic_rl")
    finished: set[str] = set()
    for end in (the_engine_dies, killed, interrupted):
        run.start().until_step("agentic_rl", 1)
        end(run)
        assert "Traceback" not in run.log.read_text()
        ids = [t.rollout_id for t in read_trajectories(buffer.trajectories)]
        assert len(ids) == len(set(ids)) and finished <= set(ids)
        finished = set(ids)
        ledger = read_ledger(buffer.folder, buffer.name)
        assert ledger.counts().balanced and 0 < ledger.step < STEPS
    run.start().until_done("agentic_rl").kill()
    ids = [t.rollout_id for t in read_trajectories(buffer.trajectories)]
    assert len(ids) == len(set(ids)) and finished <= set(ids)
    counts = read_ledger(buffer.folder, buffer.name).counts()
    assert counts.balanced and not counts.failed, counts
    steps = [row["step"] for row in run.rows("agentic_rl")]
    # One version per update and none per restart: a new number would make finished rollouts look stale.
    newest = latest(run.stage("agentic_rl") / "weights")
    assert newest is not None and newest.version == STEPS
    assert steps[-1] == STEPS and all(after >= before for before, after in itertools.pairwise(steps)), steps
    # A group that a kill cut in two may be too stale once its other half was run again; the books say so.
    assert set(counts.dropped) <= {"stale", "too_few_valid"} and sum(counts.dropped.values()) <= 6, counts
    assert STEPS * 2 * 2 - sum(counts.dropped.values()) <= counts.trained <= STEPS * 2 * 2, counts


def the_engine_dies(run):
    (engine,) = (pid for pid in descendants(run.process.pid) if "arcforge.serve.main" in command_of(pid))
    os.kill(engine, signal.SIGKILL)
    assert run.process.wait(60) == 2
    assert "agentic_rl: engine-0 ended with code -9" in run.log.read_text().splitlines()[-1]


def killed(run):
    run.kill()


def interrupted(run):
    code, seconds = run.end(signal.SIGINT)
    assert code == 130 and seconds < 5
    assert "interrupted; the same command continues: arcforge run " in run.log.read_text().splitlines()[-1]


@pytest.mark.slow
def test_the_later_stages_go_on_after_every_kind_of_end(copy_of_reference):
    run = copy_of_reference()
    ends_of = {"general_rl": killed, "distill": interrupted, "evaluate": killed, "export": interrupted}
    for stage, end in ends_of.items():
        run.start().until(lambda stage=stage: run.stage(stage).is_dir())
        time.sleep(0.5)  # somewhere inside the stage
        end(run)
        assert "Traceback" not in run.log.read_text() and not run.done(stage)
    assert run.start().process.wait(300) == 0
    text = run.log.read_text()
    assert "Traceback" not in text and f"report: {run.folder}/report.html" in text
    assert len(list((run.folder / "stages").glob("*/done.json"))) == 11
    assert not [path for path in run.folder.rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]
    assert not list(run.folder.rglob("trainer"))
