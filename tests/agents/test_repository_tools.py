"""The standard toolset in a real directory with real commands, and toolsets put together from lists."""

import asyncio
import sys

import pytest
from pydantic import Field

from arcforge.agents.repository_tools import repository_tools
from arcforge.agents.toolset import ANSWER_CHARS, Arguments, Tool, Toolset
from arcforge.core.errors import SandboxError, ToolError
from arcforge.core.messages import ToolCall
from arcforge.core.protocols import ExecResult
from arcforge.sandbox.folder import new_directory
from arcforge.sandbox.process import ProcessSandbox

FILES = {
    "src/cat.py": "def fox(a, b):\n    return a * b\n\n\ndef owl(a):\n    return a\n",
    "src/elk.py": "import cat\nFOX = cat.fox(1, 2)\n",
    "notes.txt": "fox and owl\n",
    "empty": "",
}


def play(*calls, files=FILES):
    """Answers to (name, arguments) calls, the files afterwards, and whether the agent submitted."""

    async def work():
        sandbox = ProcessSandbox(new_directory(files))
        tools = Toolset(repository_tools(sandbox, python=sys.executable))
        try:
            answers = [await tools.call(ToolCall(name=name, arguments=arguments)) for name, arguments in calls]
            return answers, {path: await sandbox.read(path) for path in await sandbox.files()}, tools.done
        finally:
            await sandbox.close()

    return asyncio.run(work())


def answer(name, files=FILES, **arguments):
    return play((name, arguments), files=files)[0][0]


def test_a_repair_from_grep_to_submit():
    answers, texts, done = play(
        ("grep", {"pattern": "def fox"}),
        ("read", {"path": "src/cat.py", "end": 2}),
        ("edit", {"path": "src/cat.py", "old": "a * b", "new": "a + b"}),
        ("python", {"code": "import sys; sys.path.insert(0, 'src'); import cat; print(cat.fox(2, 3))"}),
        ("bash", {"command": "cd src && ls *.py"}),
        ("bash", {"command": "ls -d src"}),
    )
    assert answers == [
        "src/cat.py:1:def fox(a, b):",
        "     1\tdef fox(a, b):\n     2\t    return a * b",
        "src/cat.py changed at line 2",
        "5",
        "cat.py\nelk.py",
        "src",
    ]
    assert texts["src/cat.py"] == FILES["src/cat.py"].replace("a * b", "a + b") and not done
    assert play(("submit", {}))[2]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("true", "(no output)"),
        ("echo out; echo err >&2; echo more; exit 3", "out\nerr\nmore\n[exit code 3]"),
        ("cat <<END\n$((1 + 1))\nEND", "2"),
        ("fly away", "fly: command not found"),
        ("if", "syntax error"),
        ("echo \0", "an argument has a NUL character"),
        ("echo \ud800", "an argument is not valid Unicode"),
        (": " + "x" * 200_000, "too many for one command"),
    ],
)
def test_bash_tells_what_was_printed_and_how_it_ended(command, told):
    text = answer("bash", command=command)
    assert told in text and (text == told or "\n" not in told)


def test_a_command_that_hangs_is_killed():
    assert answer("bash", command="echo begun; sleep 30", timeout=1) == "begun\n[killed after 1 s]"


def test_long_output_keeps_its_ends():
    text = answer("bash", command="echo begin; seq 5000; echo end")
    assert text.startswith("begin\n1\n") and text.endswith("\n5000\nend")
    assert len(text) <= ANSWER_CHARS and "characters left out" in text
    assert "[it printed more than is kept" in answer("bash", command="seq 50000")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"path": "src/elk.py", "start": 2}, "     2\tFOX = cat.fox(1, 2)"),
        ({"path": "src/elk.py", "start": "2", "end": 9}, "     2\tFOX = cat.fox(1, 2)"),
        ({"path": "src/elk.py", "start": 3}, "src/elk.py has 2 lines; there is none from 3 to the end"),
        ({"path": "src/cat.py", "start": 4, "end": 3}, "src/cat.py has 6 lines; there is none from 4 to 3"),
        ({"path": "empty"}, "empty is empty"),
        ({"path": "src"}, "src is a folder:\ncat.py\nelk.py"),
        ({"path": "."}, ". is a folder:\nempty\nnotes.txt\nsrc/"),
        ({"path": "none"}, "none: no such file"),
        ({"path": "notes.txt/x"}, "notes.txt/x: a part of the path is a file"),
        ({"path": "../x"}, "../x: outside the sandbox"),
        ({"path": "x\0"}, "x\0: embedded null byte"),
        ({}, "bad arguments for read: path: Field required"),
        ({"path": "empty", "start": "x"}, "bad arguments for read: start: Input should be a valid integer"),
        ({"path": "empty", "start": 0}, "bad arguments for read: start: Input should be greater than or equal to 1"),
        ({"path": "empty", "lines": 3}, "bad arguments for read: lines: Extra inputs are not permitted"),
    ],
)
def test_read(arguments, told):
    assert answer("read", **arguments).startswith(told)


def test_a_long_file_is_read_in_parts_that_miss_nothing():
    text = "".join(f"line {number}\n" for number in range(1, 3001))
    first = answer("read", files={"long": text}, path="long")
    shown, _, note = first.rpartition("\n")
    last = int(shown.rpartition("line ")[2])
    assert note == f"[lines 1 to {last} of 3000; read on from {last + 1}]" and len(first) < ANSWER_CHARS
    assert answer("read", files={"long": text}, path="long", start=last + 1).startswith(
        f"{last + 1:6}\tline {last + 1}\n"
    )
    wide = answer("read", files={"wide": "y" * 90_000}, path="wide")
    assert wide.endswith("y [88000 more characters]")


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("src/cat.py", "return a", "x", "occurs 2 times in src/cat.py (lines 2, 6); give more"),
        ("src/cat.py", "return c", "x", "occurs nowhere in src/cat.py. Nothing"),
        ("src/cat.py", "  def owl(a):", "x", "but without the blank space at its ends it does"),
        ("src/cat.py", "def owl(a):\nreturn a", "x", "its lines do with another indentation"),
        ("src/cat.py", "a * b", "a * b", "the same"),
        ("src/cat.py", "", "x", "exists already"),
        ("none.py", "a", "x", "none.py: no such file"),
        ("src", "a", "x", "src: Is a directory"),
        ("../x", "", "x", "outside the sandbox"),
        ("x", "", "\ud800", "surrogates not allowed"),
    ],
)
def test_edits_that_are_refused_change_nothing(path, old, new, told):
    answers, texts, _ = play(("edit", {"path": path, "old": old, "new": new}))
    assert told in answers[0] and texts == FILES


def test_overlapping_occurrences_are_not_unique():
    assert "2 times" in answer("edit", files={"x": "aaa"}, path="x", old="aa", new="b")


def test_edit_makes_a_new_file():
    answers, texts, _ = play(("edit", {"path": "deep/new.py", "old": "", "new": "x = 1\n"}))
    assert answers == ["deep/new.py made"] and texts == {**FILES, "deep/new.py": "x = 1\n"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pattern": "fox"}, "notes.txt:1:fox and owl\nsrc/cat.py:1:def fox(a, b):\nsrc/elk.py:2:FOX = cat.fox(1, 2)"),
        ({"pattern": "^FOX", "ignore_case": True, "glob": "*.txt"}, "notes.txt:1:fox and owl"),
        ({"pattern": "a|b", "path": "src/elk.py"}, "src/elk.py:1:import cat\nsrc/elk.py:2:FOX = cat.fox(1, 2)"),
        ({"pattern": "zebra"}, "no match"),
        ({"pattern": "fox", "path": "none"}, "none: cannot be searched"),
        ({"pattern": "-e"}, "no match"),
        ({"pattern": "a(b"}, "grep: Unmatched"),
        ({"pattern": "a\0"}, "an argument has a NUL character"),
    ],
)
def test_grep(arguments, told):
    assert answer("grep", **arguments).startswith(told)


def test_grep_says_how_many_matches_it_leaves_out():
    files = {"long": "x\n" * 150, "wide": "y" * 5000, ".git/x": "y", "b\tc": "z"}
    text = answer("grep", files=files, pattern="x")
    assert text.count("long:") == 100 and text.endswith("[50 more matches; narrow the search]")
    assert answer("grep", files=files, pattern="y") == f"wide:1:{'y' * 298} [4702 more characters]"


def test_python_tells_a_traceback_and_the_exit_code():
    text = answer("python", code="print(1)\n1 / 0")
    assert text.startswith("1\nTraceback") and text.endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert answer("python", code="") == "(no output)"


def test_unknown_tools_are_answered():
    assert answer("fly") == "no tool fly; there are bash, read, edit, grep, python, submit"


class Bare:
    async def exec(self, argv, timeout=0.0, stdin=""):
        return ExecResult(exit_code=127, stdout="", stderr="grep: not found")

    async def read(self, path):
        raise SandboxError("gone")


def test_broken_machinery_raises():
    async def work(name, **arguments):
        await Toolset(repository_tools(Bare())).call(ToolCall(name=name, arguments=arguments))

    with pytest.raises(ToolError, match="no grep"):
        asyncio.run(work("grep", pattern="x"))
    with pytest.raises(SandboxError, match="gone"):
        asyncio.run(work("read", path="x"))


class Word(Arguments):
    """Never told to a model."""

    title: str = Field(description="What to look up.")
    times: int = 1


async def look_up(arguments):
    match arguments.title:
        case "hang":
            await asyncio.sleep(60)
        case "offline":
            raise ConnectionError("refused")
    return arguments.title * arguments.times


LOOK_UP = Tool("look_up", "A meaning.", Word, look_up)


def test_an_environment_adds_its_own_tools():
    tools = Toolset([*repository_tools(Bare()), LOOK_UP])
    assert [spec.name for spec in tools.specs] == ["bash", "read", "edit", "grep", "python", "submit", "look_up"]
    assert tools.specs[-1].parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "title": {"type": "string", "description": "What to look up."},
            "times": {"type": "integer", "default": 1},
        },
        "required": ["title"],
    }
    assert asyncio.run(tools.call(ToolCall(name="look_up", arguments={"title": 7, "times": "2"}))) == "77"
    with pytest.raises(ValueError, match="one name"):
        Toolset([LOOK_UP, LOOK_UP])


def test_every_argument_is_described():
    for spec in Toolset(repository_tools(Bare())).specs:
        assert spec.description and all(told["description"] for told in spec.parameters["properties"].values())


@pytest.mark.parametrize(("title", "said"), [("hang", "no answer after 0.05 s"), ("offline", "look_up: refused")])
def test_a_tool_that_hangs_or_loses_its_service_is_a_tool_error(title, said):
    with pytest.raises(ToolError, match=said):
        asyncio.run(Toolset([LOOK_UP], seconds=0.05).call(ToolCall(name="look_up", arguments={"title": title})))
