"""chat, agent, eval, convert, inspect and serve on a real checkpoint, as processes."""

import os
import re
import signal
import subprocess
import urllib.request

import pytest
from parrot import parrot
from tinyrun import ARCFORGE

WRONG, TESTS = "def fox(a,b):\n    return a*b\n", "from cat import fox\nassert fox(7,3)==10\n"


def arcforge(*args, stdin=""):
    command = [*ARCFORGE, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    """Thinks "hm" and answers "né" whatever it is asked."""
    return parrot(tmp_path_factory.mktemp("thinker") / "checkpoint", "<think>hm</think>né<|user|>")


@pytest.fixture(scope="module")
def submitter(tmp_path_factory):
    """A run whose agentic RL checkpoint submits at once."""
    run = tmp_path_factory.mktemp("submitter")
    parrot(run / "stages" / "07-agentic_rl" / "checkpoint", "</think><tool_call>submit</tool_call><|observation|>")
    return run


def test_chat_answers_lines_from_a_pipe(thinker):
    lines = ["hello", "/think on", "hello", "/reset", "/what", "again", "/exit", "not read"]
    done = arcforge("chat", thinker, stdin="\n".join(lines))
    assert done.returncode == 0 and done.stderr == ""
    answer, thought, new, *help_text, again = done.stdout.splitlines()
    assert (answer, thought) == ("né", "<think>hm</think>")
    assert "/system TEXT" in done.stdout and again == "né" and new == "né"


def test_the_agent_tells_its_turns_and_whether_the_tests_pass(submitter, tmp_path):
    (tmp_path / "cat.py").write_text(WRONG)
    (tmp_path / "test.py").write_text(TESTS)
    done = arcforge("agent", "--repo", tmp_path, "--model", submitter, "--attempts", 2, "fix fox")
    assert done.returncode == 1 and done.stderr == ""
    turns = [" 1 submit", "   ok"]
    assert done.stdout.splitlines() == [
        *turns, "", "the tests still fail; attempt 2 of 2", *turns, "",
        "nothing was changed", "", "the tests still fail: cat.py fox(7,3)=21 want 10",
    ]  # fmt: skip


def test_eval_prints_the_share_solved(thinker):
    done = arcforge("eval", thinker, "--family", "reason", "--count", 8)
    assert done.returncode == 0, done.stderr
    head, _, row = done.stdout.splitlines()
    assert head.split()[-5:] == ["all", "math", "code", "logic", "table"] and "0.0 [0.0, 32.4]" in row


def test_convert_and_inspect(thinker, tmp_path):
    fp8 = tmp_path / "fp8"
    assert arcforge("convert", thinker, fp8, "--dtype", "fp8").stdout == f"{fp8}\n"
    shown = arcforge("inspect", fp8)
    assert shown.returncode == 0 and shown.stderr == ""
    assert "F8_E4M3" in shown.stdout and "all of its control tokens are present" in shown.stdout


def test_serve_answers_until_it_is_interrupted(thinker):
    command = [*ARCFORGE, "serve", str(thinker), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        found = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", server.stdout.readline())
        with urllib.request.urlopen(f"{found[1]}/health", timeout=30) as answer:
            assert answer.status == 200
        os.kill(server.pid, signal.SIGINT)
        assert server.wait(30) == 0 and server.stderr.read() == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("chat", "nowhere"), "nowhere: neither a run folder nor a checkpoint folder"),
        (("inspect", "{run}"), "config.json: missing"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_exit_2(args, words, submitter):
    done = arcforge(*(arg.format(run=submitter) for arg in args))
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1
