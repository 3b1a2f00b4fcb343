"""The python tool on single-turn families, and the names of the registry."""

import asyncio

import pytest

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import SandboxError, UserError
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.tasks import Family, Task
from arcforge.envs.math.family import MathFamily
from arcforge.envs.python_tool import MOST_OUTPUT, told
from arcforge.envs.registry import family
from arcforge.envs.tool_integrated import ToolIntegratedEpisode


def python(code, **more):
    return Message(role="assistant", tool_calls=(ToolCall(name="python", arguments={"code": code, **more}, id="1"),))


def with_family(name, use):
    async def run():
        made = family(name)
        try:
            return await use(made)
        finally:
            await made.close()

    return asyncio.run(run())


def test_a_model_that_computes_and_then_answers():
    async def use(made: Family):
        task: Task = made.task("train", 0)
        assert task.family == made.name == "math+python:1" and [tool.name for tool in task.tools] == ["python"]
        assert "new interpreter" in task.messages[0].content
        episode = await task.open()
        assert isinstance(episode, ToolIntegratedEpisode)
        answer = Message(role="assistant", content=f"\\boxed{{{episode._task.reference['answer']}}}")
        script = [python("print(6 * 7)"), python("import nowhere"), answer]
        run = await run_agent(task, episode, ScriptedCompleter(script), KeepAll(), Sampling())
        results = [message.content for message in run.messages if message.role == "tool"]
        assert results[0] == "42\n" and "ModuleNotFoundError" in results[1]
        right, unanswered = await episode.grade(run.messages), await episode.grade(run.messages[:-1])
        wrong = await episode.grade((*run.messages, Message(role="assistant", content="\\boxed{x^x}")))
        await episode.close()
        assert (right.reward, unanswered.reward, wrong.reward) == (1.0, 0.0, 0.0)

    with_family("math+python:1", use)


def test_calls_start_afresh_and_files_stay():
    async def use(made):
        episode = await made.task("train", 0).open()
        calls = [
            "x = 1; open('kept', 'w').write('here')",
            "print(open('kept').read())\nprint(x)",
            "while True: pass",
            "raise SystemExit(3)",
        ]
        texts = [await episode.call(ToolCall(name="python", arguments={"code": code})) for code in calls[:2]]
        texts.append(await episode.call(ToolCall(name="python", arguments={"code": calls[3]})))
        long = await episode.call(ToolCall(name="python", arguments={"code": "print('a' * 20000)"}))
        mistakes = [
            await episode.call(ToolCall(name="bash", arguments={})),
            await episode.call(ToolCall(name="python", arguments={"code": [3]})),
            await episode.call(ToolCall(name="python", arguments={"code": "1", "more": "2"})),
        ]
        await episode.close()
        assert "no output" in texts[0] and texts[1].startswith("here\n") and "NameError" in texts[1]
        assert texts[2] == "(exit code 3)" and len(long) < MOST_OUTPUT + 100 and "left out" in long
        assert "no tool bash" in mistakes[0] and "valid string" in mistakes[1] and "more" in mistakes[2]

    with_family("code+python", use)


def test_what_the_tool_says_of_a_run_that_was_stopped():
    from arcforge.core.protocols import ExecResult

    assert told(ExecResult(exit_code=-9, stdout="", stderr="", timed_out=True)) == "(stopped after 10 s)"
    late = told(ExecResult(exit_code=0, stdout="a" * 9000, stderr="the end", timed_out=True))
    assert "left out" in late and late.endswith("the end\n(stopped after 10 s)") and len(late) < MOST_OUTPUT + 30


def test_a_broken_sandbox_is_raised():
    def broken():
        raise SandboxError("no more disk")

    async def use(made):
        episode = ToolIntegratedEpisode(made.task("train", 0).inner, broken)
        with pytest.raises(SandboxError, match="disk"):
            await episode.call(ToolCall(name="python", arguments={"code": "1"}))

    with_family("science+python", use)


def test_only_single_turn_tasks_take_the_tool():
    async def use(made):
        with pytest.raises(UserError, match="only tasks of one turn"):
            made.task("train", 0)

    with_family("swe+python", use)


def test_demonstrations_know_of_the_tool():
    shown = family("science+python:2").demonstration(3)
    assert shown.tools and shown.messages[-1].content and "tool `python`" in shown.messages[0].content


@pytest.mark.parametrize("name", ["math", "science:2-4", "code:5", "math+python", "code+python:1-2"])
def test_names_build_families_called_so(name):
    made = family(name, 7)
    assert made.name == name and made.task("dev", 3).messages == family(name, 7).task("dev", 3).messages


def test_a_name_does_not_change_the_exercises():
    named, inside, made = family("math:2-3", 5), family("math+python:2-3", 5), MathFamily(5, (2, 3))
    for index in range(20):
        question = made.task("dev", index).messages[1]
        assert question == named.task("dev", index).messages[1] == inside.task("dev", index).messages[1]
        assert made.demonstration(index).messages == named.demonstration(index).messages


def test_levels_in_a_name():
    made = family("math:2-3")
    assert {made.task("train", i).task_id.split("/")[2] for i in range(36)} == {"2", "3"}


@pytest.mark.parametrize(
    "name",
    [
        "maths",
        "math:0",
        "math:4-2",
        "math:",
        "math:x",
        "reason:2",
        "gsm8k",
        "gsm8k@tset:f",
        "selected:nowhere",
        "+python",
    ],
)
def test_wrong_names_are_refused(name):
    with pytest.raises(UserError):
        family(name)
