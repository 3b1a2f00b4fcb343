"""`arcforge env` on real tasks."""

import json

import pytest
from scripted_model import scripted_model
from typer.testing import CliRunner

from arcforge.cli.main import app
from arcforge.core.errors import UserError
from arcforge.envs.terminal.harbor import read_task
from arcforge.pipeline.environments import exported, shown, validated
from arcforge.sandbox.host import bubblewrap_works

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")


def env(*words):
    return CliRunner().invoke(app, ["env", *map(str, words)])


def test_the_list_names_every_family_and_a_task_is_shown():
    said = env("list").output
    assert all(
        name in said for name in ("swe", "math", "terminal", "slides", "gsm8k:FILE", "mbpp:FILE", "selected:FILE")
    )
    text = shown("math:3", 0, "test", 0)
    assert "[user]" in text and shown("math:3", 0, "test", 0) == text
    with pytest.raises(UserError, match="split"):
        shown("math", 0, "all", 0)
    wrong = env("show", "no-such")
    assert wrong.exit_code == 2 and "no-such" in wrong.output


def test_tasks_are_written_as_harbor_reads_them(tmp_path):
    assert exported(tmp_path, "csv", 3, 5) == f"3 tasks in {tmp_path}"
    tasks = [read_task(folder) for folder in sorted(tmp_path.iterdir())]
    assert len({task.instruction for task in tasks}) == 3 and all("solve.sh" in task.part("solution") for task in tasks)
    assert {task.config.environment.network_mode for task in tasks} == {"no-network"}
    with pytest.raises(UserError, match="exists already"):
        exported(tmp_path, "csv", 1, 5)
    exported(tmp_path / "open", "csv", 1, 5, "public")
    assert read_task(next((tmp_path / "open").iterdir())).config.environment.network_mode == "public"
    with pytest.raises(UserError, match="network 'wifi'"):
        exported(tmp_path, "csv", 1, 6, "wifi")
    with pytest.raises(UserError, match=r"no task\.toml"):
        validated([tmp_path / "none"], 1, 1)


@needs_bubblewrap
def test_a_fit_task_and_one_that_is_not_are_told_apart_and_run(tmp_path):
    exported(tmp_path, "text", 1, 0)
    folder = next(tmp_path.iterdir())
    good = env("validate", folder, "--oracle-runs", 1)
    assert good.exit_code == 0 and "1 of 1 are fit" in good.output
    assert "reward 1.0" in env("run", folder).output and "reward 0.0" in env("run", folder, "--model", "nop").output
    (folder / "solution/solve.sh").write_text("true\n")
    bad = env("validate", tmp_path, "--oracle-runs", 1)
    assert bad.exit_code == 1 and "does not pass" in bad.output
    (folder / "tests/test.sh").write_text("kill -9 $$\n")
    dead = env("run", folder, "--model", "nop")
    assert dead.exit_code == 1 and "no reward: verifier" in dead.output


def model(*turns):
    """Calls these tools in turn."""

    def call(asked):
        return {"tool_calls": [{"id": f"c{len(asked)}", "type": "function", "function": turns[len(asked) - 1]}]}

    return scripted_model(call)


@needs_bubblewrap
def test_a_model_at_a_url_works_on_a_task_and_its_run_is_written(tmp_path):
    exported(tmp_path, "text", 1, 0)
    folder = next(tmp_path.iterdir())
    solution = (folder / "solution/solve.sh").read_text()
    turns = [
        {"name": "bash", "arguments": json.dumps({"command": solution})},
        {"name": "submit", "arguments": "{}"},
    ]
    with model(*turns) as (url, asked):
        done = env("run", folder, "--model", url, "--trajectory", tmp_path / "run", "--context", "keep-recent")
    assert done.exit_code == 0 and "submitted after 2 turns: reward 1.0" in done.output, done.output
    assert asked[0]["model"] == "scripted" and {tool["function"]["name"] for tool in asked[0]["tools"]} >= {
        "bash",
        "submit",
    }
    document = json.loads((tmp_path / "run/trajectory.json").read_text())
    assert document["schema_version"] == "ATIF-v1.8" and document["extra"]["reward"] == 1.0
    assert [step["source"] for step in document["steps"]] == ["system", "user", "agent", "agent"]
