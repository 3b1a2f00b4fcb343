"""The agent on a user's folder: a copy, real commands, a diff."""

import asyncio
import subprocess
import sys

import pytest

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.envs.local import LocalTask
from arcforge.envs.swe.oracle import oracle

WRONG = "def fox(a,b):\n    return a*b\n"
TESTS = "from cat import fox\nassert fox(7,3)==10\n"


@pytest.fixture
def repo(tmp_path):
    (tmp_path / "cat.py").write_text(WRONG)
    (tmp_path / "test.py").write_text(TESTS)
    (tmp_path / ".git").mkdir()
    return tmp_path


def work(task, answers):
    """Messages, diff and verdict of one run."""

    async def session():
        episode = await task.open()
        try:
            run = await run_agent(task, episode, ScriptedCompleter(answers), KeepAll(), Sampling())
            return run.messages, await episode.diff(), await episode.grade(run.messages)
        finally:
            await episode.close()

    return asyncio.run(asyncio.wait_for(session(), 60))


def say(name, **arguments):
    return Message(role="assistant", tool_calls=(ToolCall(name=name, arguments=arguments),))


def test_the_result_is_a_diff_that_applies_and_the_folder_stays(repo):
    messages, text, verdict = work(LocalTask(repo, "fix fox"), oracle)
    assert messages[1].content == "fix fox" and verdict.reward == 1.0
    assert messages[3].content == "cat.py fox(7,3)=21 want 10"
    assert (repo / "cat.py").read_text() == WRONG
    subprocess.run(["patch", "-p1"], input=text, text=True, cwd=repo, check=True, capture_output=True, timeout=30)
    assert (repo / "cat.py").read_text() == WRONG.replace("a*b", "a+b")


def test_a_test_command_of_the_user(repo):
    command = f"{sys.executable} -B test.py"
    script = [say("test"), say("list"), say("edit", path="cat.py", old="a*b", new="a+b"), say("test"), say("submit")]
    messages, text, verdict = work(LocalTask(repo, "fix fox", command), script)
    answers = [m.content for m in messages if m.role == "tool"]
    assert "AssertionError" in answers[0] and answers[1:] == ["cat.py\ntest.py", "ok", "exit code 0", "ok"]
    assert verdict.reward == 1.0 and "+    return a+b" in text


def test_nothing_changed_is_an_empty_diff(repo):
    _, text, verdict = work(LocalTask(repo, "fix fox"), [say("submit")])
    assert text == "" and verdict.reward == 0.0


def test_a_wrong_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        LocalTask(tmp_path / "none", "fix")
    with pytest.raises(UserError, match=r"no test\.py"):
        LocalTask(tmp_path, "fix")


def test_the_standard_tools_work_on_a_folder_without_tests(repo):
    (repo / "test.py").unlink()
    script = [
        say("bash", command="ls; git log 2>&1 | head -1"),
        say("grep", pattern="a\\*b"),
        say("edit", path="cat.py", old="a*b", new="a+b"),
        say("python", code="import cat; print(cat.fox(7, 3))"),
        say("bash", command="touch /usr/trace; rm -rf /workspace/.git"),
        say("submit"),
    ]
    messages, text, verdict = work(LocalTask.standard(repo, "fix fox"), script)
    answers = [m.content for m in messages if m.role == "tool"]
    assert "cat.py" in answers[0] and "cat.py:2" in answers[1] and answers[3].strip().startswith("10")
    assert verdict.reward is None and "+    return a+b" in text and (repo / ".git").is_dir()
    assert (repo / "cat.py").read_text() == WRONG
