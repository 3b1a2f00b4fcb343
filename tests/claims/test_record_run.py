"""A whole record by the command line, killed inside a comparison and started again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tinyrecord import RECIPE

from arcforge.claims.record import COMPARISONS

ARCFORGE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')"]
PATIENCE = 180.0


@pytest.mark.slow
def test_a_record_that_was_killed_goes_on_and_is_whole(tmp_path, source):
    home, log = tmp_path / "run", tmp_path / "log"
    command = [*ARCFORGE, "run", str(RECIPE), f"run.folder={home}", f"data.source={source}"]
    first = home / "comparisons" / "attention-seed-0.json"
    with open(log, "wb") as file:
        killed = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        until((home / "comparisons" / "multi_token-seed-0" / "three_steps").exists, killed, log)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(30)
    kept = first.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == kept, "what was measured is not measured again"
    raw = json.loads((home / "record" / "results.json").read_text())
    found = raw["seeds"]["0"]
    assert list(found["comparisons"]) == list(COMPARISONS) and raw["command"].startswith("arcforge run ")
    assert len(found["stages"]) == 11 and len(found["gains"]) == 3
    assert all(isinstance(result["held"], bool) for result in found["comparisons"].values())
    assert [row["tasks"] + row["failed"] for row in found["comparisons"]["teachers"]["rows"]] == [4] * 4
    text = (home / "record" / "README.md").read_text()
    assert all(f"| {name} |" in text for name in (*COMPARISONS, "agentic_rl", "all"))
    assert "[record]" in (home / "record" / "config.toml").read_text()
    assert "[record]" not in (home / "seed-0" / "config.toml").read_text()


def until(condition, process, log):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended early:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nothing happened:\n{log.read_text()}"
        time.sleep(0.02)
