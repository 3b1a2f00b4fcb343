"""Two runs at once: in two folders they do not meet, in one folder the second is refused."""

import subprocess

import pytest
from tinyrun import TinyRun, done_json

from arcforge.core.runs import RunFolder


def test_a_folder_takes_one_run_at_a_time(tmp_path):
    """The other half, two folders at once, is the fixture `side_by_side`."""
    held = RunFolder(tmp_path / "run").create().lock()
    refused = subprocess.run(
        TinyRun(held.path, tmp_path).command, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == f"{held.path}: another process runs in this folder; wait for it or set run.folder\n"
    assert sorted(path.name for path in held.path.iterdir()) == [".lock"]


@pytest.mark.slow
def test_two_whole_runs_at_once_both_succeed(tmp_path, source, runs):
    # Two threads each: four on what may be two cores, and checkpoints evaluated by two processes.
    both = [TinyRun(tmp_path / name, source, ("run.threads=2",)) for name in ("first", "second")]
    runs += both
    for run in both:
        run.start()
    for run in both:
        assert run.process.wait(900) == 0, run.log.read_text()
        assert (run.folder / "report.html").stat().st_size > 50_000
        assert len(list((run.folder / "stages").glob("*/done.json"))) == 11
        exported = done_json(run, "export")["metrics"]
        assert exported["bfloat16_megabytes"] > 0.1 and exported["transformers_logit_gap"] < 1e-3
    for stage in ("pretrain", "midtrain", "sparse", "sft", "reasoning_rl"):
        assert both[0].weights(stage) == both[1].weights(stage), stage
