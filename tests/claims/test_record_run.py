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
from arcforge.claims.twins import STEPS
from arcforge.core.runs import read_jsonl

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
    check_twins(home / "comparisons" / "twins-seed-0", found["comparisons"]["twins"])
    assert [row["tasks"] + row["failed"] for row in found["comparisons"]["teachers"]["rows"]] == [4] * 4
    text = (home / "record" / "README.md").read_text()
    assert all(f"| {name} |" in text for name in (*COMPARISONS, "agentic_rl", "all"))
    assert "[record]" in (home / "record" / "config.toml").read_text()
    assert "[record]" not in (home / "seed-0" / "config.toml").read_text()


def check_twins(folder, result):
    """Every arm made its updates on its own placement; the synchronous ones on fresh rollouts alone."""
    assert [row["arm"] for row in result["rows"]] == ["asynchronous", "synchronous", "synchronous_both_cores"]
    for row in result["rows"]:
        place = folder / f"round-0-{row['arm']}"
        assert row["wall_seconds"] > row["trainer_waits"] >= 0 and row["wall_seconds"] > row["engines_idle"] >= 0
        assert row["updates_per_minute"] == pytest.approx(60 * STEPS / row["wall_seconds"])
        steps = [r for r in read_jsonl(place / "metrics.jsonl") if r["stage"] == "agentic_rl"]
        assert [r["step"] for r in steps] == [*range(1, STEPS + 1)]
        assert {p.name for p in place.iterdir()} >= {"events.jsonl", "metrics.jsonl", "timing.json"}
        assert not (place / "stages").exists()


def until(condition, process, log):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended early:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nothing happened:\n{log.read_text()}"
        time.sleep(0.02)
