"""The benchmarks that run tasks under Harbor itself and those of others here, without Harbor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arcforge.envs.terminal.draft import Draft, build
from arcforge.envs.terminal.harbor import write_task

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ours(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import harbor

    assert Path(harbor.__file__ or "").parent == FOLDER
    yield harbor
    del sys.modules["harbor"]


def result(task, agent, reward, exception=None, started="2026-01-01T00:00:00Z"):
    return {
        "task_name": f"org/{task}", "agent_info": {"name": agent}, "started_at": started,
        "finished_at": "2026-01-01T00:01:30.500000Z", "verifier_result": {"rewards": {"reward": reward}} if reward is not None else None,
        "exception_info": exception, "verifier": {"started_at": started, "finished_at": "2026-01-01T00:01:00Z"},
    }  # fmt: skip


def test_tasks_of_all_kinds_come_in_turn(ours):
    tasks = ours.mixed(100, 0)
    kinds = [task.config.metadata.get("family", "handwritten") for task in tasks]
    assert len(tasks) == 45 and len({task.name for task in tasks}) == 45
    assert kinds[1:44:2] == ["handwritten"] * 22 and len(set(kinds)) == 24


def test_a_trial_that_broke_is_run_again_and_counts_only_when_no_other_was_judged(ours, tmp_path):
    tasks = [build(name, Draft("do", "true", []), {}) for name in ("one", "two")]
    failure = {"exception_type": "RuntimeError", "exception_message": "no room\nmore"}
    found = [
        result("one", "oracle", 1.0), result("one", "nop", 0.0), result("two", "nop", 0.0),
        result("two", "oracle", None, failure), result("two", "oracle", None, failure, "2026-01-01T00:00:01Z"),
    ]  # fmt: skip
    for number, told in enumerate(found):
        place = tmp_path / "oracle-0" / str(number)
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(told))
    rows = list(ours.trials(tmp_path))
    assert ours.done(rows, "oracle") == {"one"} and ours.done(rows, "nop") == {"one", "two"}
    assert rows[0]["seconds"] == 90.5 and rows[0]["verifier_seconds"] == 60.0
    told = ours.summary(rows, tasks, {})
    assert (told["as_wanted"], told["not_as_wanted"], told["trials"]) == (1, ["two"], 5)
    assert len(told["exceptions"]) == 2 and "RuntimeError: no room" in ours.written(told)


def test_tasks_of_others_are_counted_with_the_reason(tmp_path):
    task = build("sound", Draft("do", "curl x", []), {})
    write_task(task, tmp_path / "theirs")
    (write_task(build("bare", Draft("do", "", []), {}), tmp_path / "theirs") / "instruction.md").unlink()
    command = [
        sys.executable,
        str(FOLDER / "harbor_others.py"),
        "load",
        str(tmp_path / "theirs"),
        "--out",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "out/loaded.json").read_text()) == {
        "theirs": {
            "tasks": 2, "loaded": 1, "can_be_run": 1, "with_solution": 1, "with_solution_that_wants_the_network": 1,
            "reasons": {"refused: TASK: no instruction.md; a Harbor task has one": 1},
        }
    }  # fmt: skip
