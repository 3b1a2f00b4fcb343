"""What a person can get wrong, or a machine can refuse, is one line and exit 2, and leaves nothing half-written."""

import json
import os
import shlex
import subprocess

import pytest
from safetensors.torch import load_file
from tinyrun import ARCFORGE, RECIPE

from arcforge.pipeline.run import HALF_WRITTEN

ENOUGH = 512 * 1024  # bytes; the tokenizer fits and no training state does


def run(folder, source, *overrides, prefix=""):
    command = [*ARCFORGE, "run", str(RECIPE), f"run.folder={folder}", f"data.source={source}", *overrides]
    shell = f"{prefix} exec {shlex.join(command)}"
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False)


def one_line(done):
    """The last line on standard error, after an exit with 2 and no traceback; lines of progress may stand before it."""
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.strip().splitlines()
    assert all("/s eta " in line for line in lines[:-1]), done.stderr
    return lines[-1]


def nothing_half_written(folder):
    assert not [path for path in folder.rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.rglob("*.safetensors"):
        load_file(path)


def test_a_typo_names_the_nearest_key(tmp_path, source):
    line = one_line(run(tmp_path / "run", source, "pretrain.tokenz=5"))
    assert "unknown key pretrain.tokenz; the nearest is pretrain.tokens" in line
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(tmp_path, source):
    (tmp_path / "file").write_text("")
    line = one_line(run(tmp_path / "file" / "run", source))
    assert "the run folder cannot be written: Not a directory; set run.folder" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path, source):
    tmp_path.chmod(0o555)
    line = one_line(run(tmp_path / "run", source))
    tmp_path.chmod(0o755)
    assert "the run folder cannot be written: Permission denied; set run.folder" in line


def test_no_source_code_names_the_key(tmp_path):
    (tmp_path / "empty").mkdir()
    assert one_line(run(tmp_path / "run", tmp_path / "empty")).startswith("data.source: ")


def test_a_missing_tokenizer(copy_of_reference):
    stopped = copy_of_reference(stages=1)
    (stopped.stage("tokenizer") / "checkpoint" / "tokenizer.json").unlink()
    line = one_line(run(stopped.folder, stopped.source))
    assert "01-tokenizer/checkpoint/tokenizer.json: no such file" in line


@pytest.mark.slow
def test_a_file_size_limit_stops_a_run_in_one_line(tmp_path, source):
    done = run(tmp_path / "run", source, prefix=f"ulimit -f {ENOUGH // 1024};")
    assert "File too large; free space" in one_line(done)
    nothing_half_written(tmp_path / "run")


def test_a_full_disk_stops_a_run_in_one_line_and_space_lets_it_go_on(copy_of_reference, reference):
    stopped = copy_of_reference(stages=1)
    kept = stopped.folder.rename(stopped.folder.with_name("kept"))
    stopped.folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ENOUGH}", "tmpfs", stopped.folder], check=False
    ).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        (stopped.folder / "stages").mkdir()
        subprocess.run(["cp", "-r", kept / "stages" / "01-tokenizer", stopped.folder / "stages"], check=True)
        assert "No space left on device; free space" in one_line(run(stopped.folder, stopped.source))
        nothing_half_written(stopped.folder)
        subprocess.run(["mount", "-o", "remount,size=100m", stopped.folder], check=True)
        stopped.start().until_done("pretrain").kill()
        assert stopped.weights("pretrain") == reference.weights("pretrain")
    finally:
        subprocess.run(["umount", "-l", stopped.folder], check=True)
