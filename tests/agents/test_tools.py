"""The tools on a real directory."""

import asyncio
import json

import pytest

from arcforge.agents.tools import ANSWER_CHARS, TOOLS, Toolbox
from arcforge.core.errors import SandboxError
from arcforge.core.messages import ToolCall
from arcforge.sandbox.folder import Folder, new_directory

FILES = {"cat.py": "def fox(a,b):\n    return a*b\n", "elk.py": "def owl(a,b):\n    return a*b\n"}


def play(*calls, files=FILES):
    """Answers to (name, arguments) calls, the files afterwards, and whether the agent submitted."""

    async def work():
        folder = Folder(new_directory(files))

        async def run_tests():
            return "all fine"

        tools = Toolbox(folder, run_tests)
        answers = [await tools.call(ToolCall(name=name, arguments=arguments)) for name, arguments in calls]
        texts = {path: await folder.read(path) for path in await folder.files()}
        await folder.close()
        return answers, texts, tools.done

    return asyncio.run(work())


def test_each_tool():
    answers, texts, done = play(
        ("test", {}),
        ("list", {}),
        ("read", {"path": "cat.py"}),
        ("search", {"text": "fox"}),
        ("search", {"text": "a*b"}),
        ("search", {"text": "zebra"}),
        ("edit", {"path": "cat.py", "old": "a*b", "new": "a+b"}),
    )
    assert answers == ["all fine", "cat.py\nelk.py", FILES["cat.py"], "cat.py", "cat.py\nelk.py", "none", "ok"]
    assert texts == {**FILES, "cat.py": "def fox(a,b):\n    return a+b\n"}
    assert not done
    assert play(("submit", {}))[2]


def test_edit_replaces_the_first_occurrence_only():
    _, texts, _ = play(("edit", {"path": "x", "old": "a", "new": "b"}), files={"x": "aaa"})
    assert texts == {"x": "baa"}


def test_edit_makes_a_new_file_but_never_overwrites():
    answers, texts, _ = play(
        ("edit", {"path": "new.py", "old": "", "new": "x = 1\n"}), ("edit", {"path": "cat.py", "old": "", "new": "x"})
    )
    assert answers == ["ok", "not found"]
    assert texts == {**FILES, "new.py": "x = 1\n"}


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("read", {"path": "none.py"}, "no file"),
        ("read", {"path": "../../etc/passwd"}, "no file"),
        ("read", {"path": "."}, "no file"),
        ("read", {"path": "\0"}, "no file"),
        ("read", {}, "bad arguments"),
        ("read", {"path": 3}, "bad arguments"),
        ("read", {"path": "cat.py", "lines": "3"}, "bad arguments"),
        ("edit", {"path": "cat.py", "old": "a+b", "new": "x"}, "not found"),
        ("edit", {"path": "none.py", "old": "a", "new": "x"}, "no file"),
        ("edit", {"path": "../out", "old": "", "new": "x"}, "no file"),
        ("edit", {"path": ".", "old": "a", "new": "x"}, "no file"),
        ("fly", {}, "no such tool"),
    ],
)
def test_mistakes_are_answered(name, arguments, answer):
    answers, texts, done = play((name, arguments))
    assert answers == [answer] and texts == FILES and not done


def test_answers_are_capped():
    answers, _, _ = play(("read", {"path": "big"}), files={"big": "x" * 10 * ANSWER_CHARS})
    assert answers == ["x" * ANSWER_CHARS + "\n(cut)"]


def test_a_broken_sandbox_raises():
    async def work():
        folder = Folder(new_directory())
        await folder.close()

        async def run_tests():
            return ""

        with pytest.raises(SandboxError):
            await Toolbox(folder, run_tests).call(ToolCall(name="read", arguments={"path": "x"}))

    asyncio.run(work())


def test_specs_are_json_schemas_a_small_model_can_afford():
    assert [tool.name for tool in TOOLS] == ["test", "list", "read", "search", "edit", "submit"]
    assert len(json.dumps([tool.model_dump(exclude_defaults=True) for tool in TOOLS], separators=(",", ":"))) < 560
