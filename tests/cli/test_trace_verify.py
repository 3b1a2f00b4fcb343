"""`arcforge trace verify RUN`: a table, the faulty turns, and an exit code that scripts can trust."""

import subprocess
import sys

import pytest

from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.rollout.record import TrajectoryWriter
from arcforge.serve.record import EngineRecord

ARCFORGE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')"]
MODEL = TokenSpan(ids=[4, 5], source="model", logprobs=[-0.1, -0.2], version=1, trained=True)


def arcforge(*args):
    return subprocess.run([*ARCFORGE, *map(str, args)], check=False, capture_output=True, text=True, timeout=60)


def write(run, stage, *rollouts):
    with TrajectoryWriter(run / "trajectories" / f"{stage}-0.jsonl.zst") as writer:
        for rollout in rollouts:
            spans = [TokenSpan(ids=[1, 2, 3], source="prompt", mask_reason="prompt"), MODEL]
            writer.append(Trajectory(rollout_id=rollout, family="swe", task_id="swe/1", spans=spans, reward=1.0))


@pytest.fixture
def run(tmp_path):
    write(tmp_path, "agentic_rl", "swe-0")
    write(tmp_path, "reasoning_rl", "reason-0")
    record = EngineRecord(tmp_path / "stages" / "08-agentic_rl" / "engine-0.jsonl")
    record.add("swe-0-0123456789ab-0", [1, 2, 3], [MODEL], "stop")
    return tmp_path


def test_a_proven_run_is_a_table_and_exit_0(run):
    done = arcforge("trace", "verify", run)
    assert done.returncode == 0 and done.stderr == ""
    head, rule, row, other = done.stdout.splitlines()
    assert head.split("  ")[0] == "stage" and set(rule) == {"-", " "} and row.split() == ["agentic_rl", *"11000"]
    assert other == "reasoning_rl: no engine record; its 1 trajectories are not verified"


def test_turns_that_differ_or_have_no_record_are_told_and_exit_2(run):
    write(run, "agentic_rl", *(f"swe-{number}" for number in range(1, 5)))
    done = arcforge("trace", "verify", run, "--stage", "agentic_rl", "--limit", 2)
    assert done.returncode == 2 and done.stderr == ""
    assert done.stdout.splitlines()[2].split() == ["agentic_rl", *"51400"]
    told = [line for line in done.stdout.splitlines() if line.startswith("swe-")]
    assert [line.partition(":")[0] for line in told] == ["swe-1 turn 1", "swe-2 turn 1"]
    assert "2 more" in done.stdout.splitlines()[-1]


def test_a_run_without_any_engine_record_says_so_in_one_line(run):
    (run / "stages" / "08-agentic_rl" / "engine-0.jsonl").unlink()
    done = arcforge("trace", "verify", run)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "no engine record" in done.stderr and "--record" in done.stderr


def test_a_run_folder_is_still_shown(run):
    assert "2 of 2 trajectories" in arcforge("trace", run).stdout
    assert "swe-0" in arcforge("trace", run, "swe-0").stdout
    assert "nowhere: no such run folder" in arcforge("trace", "verify", "nowhere").stderr
