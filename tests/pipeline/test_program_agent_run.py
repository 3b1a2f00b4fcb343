"""Agentic RL whose rollouts are made by a program of its own: processes of the tiny recipe."""

import subprocess
import sys
from pathlib import Path

import pytest
from tinyrun import ARCFORGE, RECIPE, command_of, descendants

from arcforge.core.errors import UserError
from arcforge.pipeline.run import run_recipe
from arcforge.rl.buffer import BufferFiles, read_ledger
from arcforge.rollout.record import read_trajectories

AGENT = f"{sys.executable} -S {Path(__file__).parent / 'lucky_agent.py'}"
STEPS = 3


def with_agent(run, *overrides):
    (run.folder / "config.toml").unlink()  # a run goes on with its own recipe alone
    task = f'agentic_rl.tasks=[{{name = "swe", timeout = 60.0, agent = "{AGENT}"}}]'
    run.overrides = (f"agentic_rl.steps={STEPS}", task, *overrides)
    return run


@pytest.mark.slow
def test_a_program_is_trained_and_every_turn_of_it_verified(copy_of_reference):
    run = with_agent(copy_of_reference())
    run.start().until(lambda: any("lucky_agent" in command_of(pid) for pid in descendants(run.process.pid)))
    run.until_done("agentic_rl").kill()
    trajectories = list(read_trajectories(BufferFiles(run.folder / "trajectories", "agentic_rl").trajectories))
    trained = [t for t in trajectories if t.failure is None]
    assert {t.stop_reason for t in trained} == {"exited"}, [t.failure or t.info for t in trajectories]
    assert all(t.metrics["turns"] == 2 for t in trained)
    assert {t.reward for t in trained} == {0.0, 1.0}, "some were repaired"
    assert len({version for t in trained for version in t.versions}) > 1, "weights went out while programs ran"
    counts = read_ledger(run.folder / "trajectories", "agentic_rl").counts()
    assert counts.balanced and not counts.failed and counts.trained >= STEPS * 3
    assert [row["step"] for row in run.rows("agentic_rl")] == [1, 2, 3]
    verified = subprocess.run(
        [*ARCFORGE, "trace", "verify", str(run.folder), "--stage", "agentic_rl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


REFUSED = {"reason": (AGENT, "the tasks of reason have no files"), "swe": ("no-such-agent", "no such program here")}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_program_cannot_work_on_is_said_before_anything_starts(name, tmp_path):
    agent, said = REFUSED[name]
    changes = [f"run.folder={tmp_path / name}", f'agentic_rl.tasks=[{{name = "{name}", agent = "{agent}"}}]']
    with pytest.raises(UserError, match=f"agentic_rl.tasks: {name}: .*{said}"):
        run_recipe(RECIPE, changes)
    assert not (tmp_path / name).exists()
