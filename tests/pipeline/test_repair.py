"""The work of `arcforge agent` on real folders, with the scripted oracle in place of a model."""

import asyncio

import pytest

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, ToolCall
from arcforge.envs.local import LocalTask
from arcforge.envs.swe.oracle import oracle
from arcforge.evals.doors import CompleterDoor
from arcforge.pipeline.repair import repair, tell

WRONG = "def fox(a,b):\n    return a*b\n"
RIGHT = WRONG.replace("*", "+")
SUBMIT = Message(role="assistant", tool_calls=(ToolCall(name="submit"),))


@pytest.fixture
def repo(tmp_path):
    (tmp_path / "cat.py").write_text(WRONG)
    (tmp_path / "test.py").write_text("from cat import fox\nassert fox(7,3)==10\n")
    return tmp_path


def work_on(repo, answers, attempts=1, apply=False):
    said = []
    door = CompleterDoor(ScriptedCompleter(answers))
    work = asyncio.run(asyncio.wait_for(repair(LocalTask(repo, "fix fox"), door, attempts, apply, said.append), 60))
    tell(work, apply, said.append)
    return work, said


def test_every_turn_is_said_then_the_diff(repo):
    work, said = work_on(repo, oracle)
    assert work.passed and (repo / "cat.py").read_text() == WRONG
    assert said[:4] == [
        " 1 test",
        "   cat.py fox(7,3)=21 want 10",
        " 2 read path='cat.py'",
        "   def fox(a,b):\n       return a*b",
    ]
    assert said[-3].splitlines()[-2:] == ["-    return a*b", "+    return a+b"] and said[-1] == "the tests pass"


def test_apply_writes_the_changed_file_back_with_its_line_ends_and_mode(repo):
    (repo / "cat.py").write_bytes(WRONG.replace("\n", "\r\n").encode())
    (repo / "cat.py").chmod(0o755)
    work, said = work_on(repo, oracle, apply=True)
    assert work.written == ("cat.py",) and said[-1] == "written: cat.py"
    assert (repo / "cat.py").read_bytes() == RIGHT.replace("\n", "\r\n").encode()
    assert (repo / "cat.py").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in repo.iterdir()) == ["cat.py", "test.py"]


def test_it_tries_again_until_the_tests_pass(repo):
    tries = []

    def at_the_second(request):
        tries.append(request.session)
        return oracle(request) if len(set(tries)) > 1 else SUBMIT

    work, said = work_on(repo, at_the_second, attempts=3)
    assert work.passed and list(dict.fromkeys(tries)) == ["agent-0", "agent-1"]
    assert "\nthe tests still fail; attempt 2 of 3" in said


def test_nothing_is_written_when_the_tests_still_fail(repo):
    edit = ToolCall(name="edit", arguments={"path": "cat.py", "old": "a*b", "new": "a-b"})
    read = ToolCall(name="read", arguments={"path": "cat.py"})
    script = [Message(role="assistant", tool_calls=(call,)) for call in (read, edit)]
    work, said = work_on(repo, [*script, SUBMIT], apply=True)
    assert not work.passed and "+    return a-b" in work.diff and (repo / "cat.py").read_text() == WRONG
    assert said[-1] == "nothing was written to the folder"


def test_a_file_that_changed_meanwhile_is_left_alone(repo):
    def meddling(request):
        (repo / "cat.py").write_text("# mine\n")
        return oracle(request)

    with pytest.raises(UserError, match="changed while the agent worked; nothing was written"):
        work_on(repo, meddling, apply=True)
    assert (repo / "cat.py").read_text() == "# mine\n"
