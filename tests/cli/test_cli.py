"""The command line as a user meets it: real processes, exit codes, one-line errors, a fast --help."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from arcforge.cli.main import app

ROOT = Path(__file__).parents[2]
ARCFORGE = [sys.executable, "-c", "from arcforge.cli.main import app; app(prog_name='arcforge')"]
VERBS = ("run", "chat", "serve", "route", "agent", "eval", "convert", "inspect", "report", "trace")


def arcforge(*args):
    return execute([*ARCFORGE, *map(str, args)])


def execute(command):
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    subprocess.run([sys.executable, ROOT / "tests/view/synthetic_run.py", folder], check=True, capture_output=True)
    return folder


def parse(words):
    """Parse a command line the way the program does, without running the verb."""
    group = typer.main.get_command(app)
    context = group.make_context("arcforge", list(words[:1]), resilient_parsing=True)
    verb = group.get_command(context, words[0])
    assert verb is not None, f"no verb {words[0]}"
    return verb.make_context(words[0], list(words[1:]), parent=context).params


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_that_parse(verb):
    text = arcforge(verb, "--help").stdout
    examples = re.findall(r"^ +arcforge (.*)$", text.partition("Examples:")[2].partition("Arguments:")[0], re.M)
    assert examples, text
    for example in examples:
        words = shlex.split(example)
        assert words[0] == verb
        parse(words)


def test_run_takes_overrides_and_dry_run():
    params = parse(["run", "recipes/smoke.toml", "run.seed=1", "--dry-run", "sft.steps=2"])
    told = {"recipe": Path("recipes/smoke.toml"), "overrides": ["run.seed=1", "sft.steps=2"], "dry_run": True}
    assert params == {**told, "launcher": "local"}


def test_help_is_fast_and_light():
    code = """if True:
        import sys, time
        from arcforge.cli.main import app
        try:
            app(["--help"])
        except SystemExit:
            pass
        heavy = {"torch", "pydantic", "numpy", "transformers"} & set(sys.modules)
        print("HEAVY", sorted(heavy), time.process_time())
    """
    outputs = [execute([sys.executable, "-c", code]).stdout for _ in range(3)]
    found = [re.search(r"HEAVY \[\] ([\d.]+)", output) for output in outputs]
    assert all(found), outputs[0]
    assert min(float(match[1]) for match in found) < 0.3
    assert all(verb in outputs[0] for verb in VERBS)


def test_report_writes_the_page_and_prints_the_tables(run):
    done = arcforge("report", run)
    assert done.returncode == 0 and done.stderr == ""
    assert (run / "report.html").stat().st_size > 50_000
    assert "7 agentic_rl" in done.stdout and "18.0 [10.3, 25.7]" in done.stdout
    assert done.stdout.rstrip().endswith("report.html")


def test_trace_lists_and_shows(run):
    listed = arcforge("trace", run, "--stage", "agentic_rl", "--limit", 2).stdout
    rollout = re.findall(r"^agentic_rl-\d+", listed, re.M)
    assert len(rollout) == 2 and "2 of 60 trajectories" in listed
    shown = arcforge("trace", run, rollout[0]).stdout
    assert rollout[0] in shown and "── model v" in shown and "\033" not in shown


@pytest.mark.parametrize("args", [("report", "nowhere"), ("trace", "nowhere"), ("trace", "{run}", "nobody")])
def test_a_user_error_is_one_line_and_exit_2(args, run):
    done = arcforge(*(arg.format(run=run) for arg in args))
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and ("nowhere" in done.stderr or "nobody" in done.stderr)


def test_wrong_usage_is_exit_2():
    assert arcforge("eval", "some/checkpoint").returncode == 2
    assert arcforge("serve", "some/checkpoint", "--port", "70000").returncode == 2


def test_a_disk_that_cannot_be_written_is_one_line_and_exit_2(run):
    blocked = run.parent / "blocked"
    subprocess.run([sys.executable, ROOT / "tests/view/synthetic_run.py", blocked], check=True, capture_output=True)
    limited = f"ulimit -f 20; exec {shlex.join([*ARCFORGE, 'report', str(blocked)])}"
    done = execute(["bash", "-c", limited])
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (blocked / "report.html").exists()


def test_an_interrupt_is_exit_130(tmp_path):
    os.mkfifo(tmp_path / "config.toml")
    process = subprocess.Popen([*ARCFORGE, "report", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    writer = os.open(tmp_path / "config.toml", os.O_WRONLY)  # returns once the report reads the recipe
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    os.close(writer)
    assert process.returncode == 130 and stderr == "interrupted\n"


def test_an_interrupted_run_says_how_to_continue():
    code = "from arcforge.cli.main import _interrupted; print(_interrupted('run'))"
    said = execute([sys.executable, "-c", code, "run", "my recipes/a.toml", "run.seed=1"]).stdout
    assert said == "interrupted; the same command continues: arcforge run 'my recipes/a.toml' run.seed=1\n"
