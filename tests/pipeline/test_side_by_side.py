"""Two runs at once: in two folders they do not meet, in one folder the second is refused."""

import subprocess

import pytest
from tinyrun import TinyRun, done_json


def test_two_folders_at_once_give_the_same_bits_and_one_folder_takes_one_run(tmp_path, reference, runs):
    first, second = (TinyRun(tmp_path / name, reference.source) for name in ("first", "second"))
    runs += [first, second]
    first.start()
    second.start()
    first.until(lambda: first.stage("tokenizer").is_dir())
    refused = subprocess.run(first.command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == f"{first.folder}: another process runs in this folder; wait for it or set run.folder\n"
    for run in (first, second):
        run.until_done("pretrain").kill()
        assert run.weights("pretrain") == reference.weights("pretrain")


@pytest.mark.slow
def test_two_whole_runs_at_once_both_succeed(tmp_path, source, runs):
    both = [TinyRun(tmp_path / name, source) for name in ("first", "second")]
    runs += both
    for run in both:
        run.start()
    for run in both:
        assert run.process.wait(900) == 0, run.log.read_text()
        assert (run.folder / "report.html").stat().st_size > 50_000
        assert len(list((run.folder / "stages").glob("*/done.json"))) == 11
        assert done_json(run, "export")["metrics"]["bfloat16_megabytes"] > 0.1
    for stage in ("pretrain", "midtrain", "sparse", "sft", "reasoning_rl"):
        assert both[0].weights(stage) == both[1].weights(stage), stage
