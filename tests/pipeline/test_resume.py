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
STEPS, BATCH = 8, 2 * 2  # of agentic RL in tiny.toml: updates, and rollouts in each


def killed(run):
    run.kill()


def interrupted(run):
    code, seconds = run.end(signal.SIGINT)
    assert code == 130 and seconds < 5
    assert "interrupted; the same command continues: arcforge run " in run.log.read_text().splitlines()[-1]


def the_engine_dies(run):
    (engine,) = (pid for pid in descendants(run.process.pid) if "arcforge.serve.main" in command_of(pid))
    os.kill(engine, signal.SIGKILL)
    assert run.process.wait(60) == 2
    assert "agentic_rl: engine-0 ended with code -9" in run.log.read_text().splitlines()[-1]


def end_in(run, phase, step, end):
    """Start, let it reach a step of a phase and have its state saved, end it there."""
    stage = phase.partition("-")[0]
    run.start().until_step(phase, step).until(lambda: any(run.stage(stage).glob("trainer/*.pt")))
    end(run)
    assert "Traceback" not in run.log.read_text() and not run.done(stage)


def finish_and_compare(run, reference):
    """To the end of reasoning RL: no phase began again, and every bit of every checkpoint is that of the reference."""
    run.start().until_done("reasoning_rl").kill()
    for phase in dict.fromkeys(row["stage"] for row in reference.rows()):
        steps = [row["step"] for row in run.rows(phase)]
        assert all(after >= before for before, after in itertools.pairwise(steps)), f"{phase} began again: {steps}"
        assert max(steps) == max(row["step"] for row in reference.rows(phase))
    for stage in TRAINED:
        assert run.weights(stage) == reference.weights(stage), stage
        assert not (run.stage(stage) / "trainer").exists()
    assert not [path for path in (run.folder / "stages").rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]


@pytest.mark.slow
def test_a_run_killed_in_pretraining_sft_and_rl_has_the_bits_of_one_that_was_not(side_by_side):
    undisturbed, run = side_by_side
    assert not run.done("pretrain")
    end_in(run, "sft", 2, killed)
    end_in(run, "reasoning_rl", 1, killed)
    finish_and_compare(run, undisturbed)


@pytest.mark.slow
def test_a_run_ended_in_every_phase_has_the_bits_of_one_that_was_not(reference, copy_of_reference):
    run = copy_of_reference(stages=1)
    (run.folder / "metrics.jsonl").unlink()
    for end, phase, step in (
        (interrupted, "pretrain", 5),
        (killed, "midtrain-128", 1),
        (interrupted, "midtrain-256", 1),
        (killed, "sparse-warmup", 1),
        (killed, "sparse-adapt", 1),
        (interrupted, "sft", 3),
        (interrupted, "reasoning_rl", 2),
    ):
        end_in(run, phase, step, end)
    finish_and_compare(run, reference)


def end_in_agentic_rl(run, end, finished):
    """One step further, then the end; the rollouts written down by now. None of those before is lost or comes twice."""
    run.start().until_step("agentic_rl", 1)
    end(run)
    assert "Traceback" not in run.log.read_text()
    books = check_books(run, finished)
    assert 0 < books.step < STEPS
    return set(rollouts(run))


def rollouts(run):
    path = BufferFiles(run.folder / "trajectories", "agentic_rl").trajectories
    return [trajectory.rollout_id for trajectory in read_trajectories(path)]


def check_books(run, finished):
    ids, books = rollouts(run), read_ledger(run.folder / "trajectories", "agentic_rl")
    assert len(ids) == len(set(ids)) and finished <= set(ids)
    counts = books.counts()
    # A group that a kill cut in two may be too stale once its other half was run again; the books say so.
    assert counts.balanced and not counts.failed and set(counts.dropped) <= {"stale", "too_few_valid"}, counts
    assert books.step * BATCH - sum(counts.dropped.values()) <= counts.trained <= books.step * BATCH, counts
    return books


@pytest.mark.slow
def test_agentic_rl_that_is_ended_three_times_loses_no_finished_rollout(copy_of_reference):
    run, finished = copy_of_reference(), set()
    for end in (the_engine_dies, killed, interrupted):
        finished = end_in_agentic_rl(run, end, finished)
    steps = [row["step"] for row in run.rows("agentic_rl")]
    assert all(after >= before for before, after in itertools.pairwise(steps)), steps


@pytest.mark.slow
def test_agentic_rl_goes_on_to_its_end(copy_of_reference):
    run, finished = copy_of_reference(), set()
    for end in (killed, interrupted, killed):
        finished = end_in_agentic_rl(run, end, finished)
    run.start().until_done("agentic_rl").kill()
    assert check_books(run, finished).step == STEPS == run.rows("agentic_rl")[-1]["step"]
    # One version per update and none per restart: a new number would make finished rollouts look stale.
    newest = latest(run.stage("agentic_rl") / "weights")
    assert newest is not None and newest.version == STEPS


@pytest.mark.slow
def test_the_later_stages_go_on_after_every_kind_of_end(copy_of_reference):
    run = copy_of_reference()
    ends_of = {"general_rl": killed, "distill": interrupted, "evaluate": killed, "export": interrupted}
    for stage, end in ends_of.items():
        run.start().until(lambda stage=stage: run.stage(stage).is_dir())
        time.sleep(0.2)  # somewhere inside the stage
        end(run)
        assert "Traceback" not in run.log.read_text()
    assert run.start().process.wait(300) == 0
    text = run.log.read_text()
    assert "Traceback" not in text and f"report: {run.folder}/report.html" in text
    assert len(list((run.folder / "stages").glob("*/done.json"))) == 11
    assert not [path for path in run.folder.rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]
    assert not list(run.folder.rglob("trainer"))
