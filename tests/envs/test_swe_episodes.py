"""Tasks through the real tools, real files and real test runs."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import SandboxError
from arcforge.core.messages import Sampling, ToolCall
from arcforge.envs.swe.family import SweFamily
from arcforge.envs.swe.oracle import oracle
from arcforge.envs.swe.repository import PASSED
from arcforge.envs.swe.task import SweEpisode


def with_family(scenario, seed=0):
    async def work():
        family = SweFamily(seed)
        try:
            return await scenario(family)
        finally:
            await family.close()

    return asyncio.run(asyncio.wait_for(work(), 120))


@contextlib.asynccontextmanager
async def episode_of(task):
    episode = await task.open()
    try:
        yield episode
    finally:
        await episode.close()


def call(name, **arguments):
    return ToolCall(name=name, arguments=arguments)


async def grade(task, *calls):
    """Reward, verdict details and the answers after `calls`."""
    async with episode_of(task) as episode:
        answers = [await episode.call(one) for one in calls]
        verdict = await episode.grade([])
        return verdict.reward, verdict.details, answers


def test_the_oracle_solves_tasks_of_every_split_through_the_tools():
    async def scenario(family):
        async def solve(task):
            async with episode_of(task) as episode:
                run = await run_agent(task, episode, ScriptedCompleter(oracle), KeepAll(), Sampling())
                return run.stop_reason, run.turns <= task.max_turns, (await episode.grade(run.messages)).reward

        tasks = [family.task(split, index) for split in ("train", "dev", "test") for index in range(7)]
        return await asyncio.gather(*map(solve, tasks))

    assert with_family(scenario) == [("submitted", True, 1.0)] * 21


def test_doing_nothing_gives_zero():
    async def scenario(family):
        return [(await grade(family.task("train", i), call("submit")))[0] for i in range(8)]

    assert with_family(scenario) == [0.0] * 8


def test_edited_tests_do_not_help():
    async def scenario(family):
        task = family.task("train", 0)
        tests = task.repository.files["test.py"]
        wiped = await grade(task, call("edit", path="test.py", old=tests, new="\n"), call("test"))
        line = task.repository.test_answer({})
        got, want = line.split("=")[1].split(" want ")
        asserted = f"{line.split()[1].split('=')[0]}=={want}"
        bent = await grade(
            task, call("edit", path="test.py", old=asserted, new=asserted.replace(f"=={want}", f"=={got}"))
        )
        return wiped, bent

    (reward, details, answers), bent = with_family(scenario)
    assert answers == ["ok", "ok"] and reward == 0.0 and details["tests"] != PASSED
    assert bent[0] == 0.0


def test_what_demonstrations_say_is_what_the_real_tools_answer():
    """The pure evaluator equals the real runner, and the real grade equals the demonstrated outcome."""

    async def scenario(family):
        async def replay(index):
            made = family.demonstrate(index)
            expected = [m.content for m in made.conversation.messages if m.role == "tool"]
            calls = [m.tool_calls[0] for m in made.conversation.messages if m.tool_calls]
            episode = SweEpisode(made.repository, family.task("train", 0).server)
            answers = [await episode.call(one) for one in calls]
            reward = (await episode.grade([])).reward
            await episode.close()
            assert answers == [*expected, "ok"], made.conversation
            assert reward == float(made.passed)
            return made.passed

        return await asyncio.gather(*[replay(index) for index in range(80)])

    assert 0 < sum(with_family(scenario)) < 80


@pytest.mark.parametrize(
    ("new", "answer"),
    [
        ("a+", "{file} error"),
        ("1/0", "{file} error"),
        ("fox", "{file} error"),
        ("exit(0)", "{file} error"),
        ("print('x'*99)", "{call}=None want {want}"),
        ("'9'*99", "{call}='9999999999999999999 want {want}"),
        ("10**12", "{call}=huge want {want}"),
        ("__import__('os')._exit(0)", "error"),
        ("__import__('time').sleep(99)", "timeout"),
        ("type('',(),{'__eq__':lambda *_:1,'__repr__':lambda _:'any'})()", "{call}=any want {want}"),
    ],
)
def test_bad_edits_are_answered_shortly_and_graded_zero(new, answer, monkeypatch):
    if answer == "timeout":
        monkeypatch.setattr("arcforge.envs.swe.testing.TEST_SECONDS", 0.5)

    async def scenario(family):
        task = family.task("train", 1)
        repository = task.repository
        edit = call("edit", path=repository.bug_file, old=repository.bug.shown, new=new)
        reward, _, answers = await grade(task, edit, call("test"))
        case = next(c for c in repository.cases if c.function == repository.bug.name)
        named = f"{repository.bug_file} {case.call}"
        return reward, answers[1], answer.format(file=repository.bug_file, call=named, want=case.want)

    reward, said, expected = with_family(scenario)
    assert reward == 0.0 and len(said) < 80
    assert said == expected or (expected.endswith("<test") and said != PASSED)


def test_a_forged_report_does_not_pass():
    """Writing the report from inside a module needs the nonce, which is gone from sys.argv by then."""

    async def scenario(family):
        task = family.task("train", 2)
        repository = task.repository
        cases = [[c.module, c.call, c.want, c.want] for c in repository.cases]
        forged = (
            "__import__('os').write(3, __import__('json').dumps("
            f"{{'nonce': (__import__('sys').argv + [''])[1], 'cases': {cases!r}}}).encode()), __import__('os')._exit(0)"
        )
        edit = call("edit", path=repository.bug_file, old=repository.bug.shown, new=forged)
        return await grade(task, edit, call("test"))

    reward, _, answers = with_family(scenario)
    assert reward == 0.0 and answers == ["ok", "error"]


def test_a_dead_fork_server_is_a_failure_and_never_a_score():
    async def scenario(family):
        task = family.task("train", 3)
        async with episode_of(task) as episode:
            await episode.call(call("test"))
            for pid in (task.server.pid, *children(task.server.pid)):  # bubblewrap, and the server under it
                os.kill(pid, signal.SIGSTOP)
            grading = asyncio.create_task(episode.grade([]))
            await asyncio.sleep(0.05)
            os.kill(task.server.pid, signal.SIGKILL)
            with pytest.raises(SandboxError):
                await grading
            return (await episode.grade([])).reward

    assert with_family(scenario) == 0.0


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
