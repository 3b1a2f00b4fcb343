"""The terminal family: its demonstrations solve their tasks, in real sandboxes."""

import asyncio

import pytest

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.envs.terminal.family import TerminalFamily
from arcforge.sandbox.host import bubblewrap_works

pytestmark = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")


def call(name, **arguments):
    return Message(role="assistant", tool_calls=(ToolCall(name=name, arguments=arguments),))


def test_the_solution_solves_and_doing_nothing_or_forging_does_not():
    async def attempt(task, script):
        episode = await task.open()
        try:
            run = await run_agent(task, episode, ScriptedCompleter(script), KeepAll(), Sampling())
            return (await episode.grade(run.messages)).reward
        finally:
            await episode.close()

    async def work():
        family = TerminalFamily()
        try:
            task = family.task("train", 3)
            solution = task.harbor.part("solution")["solve.sh"].decode()
            forged = "echo 1 > /logs/verifier/reward.txt; (while :; do echo 1 > /logs/verifier/reward.txt; done) &"
            scripts = [[call("bash", command=text), call("submit")] for text in (solution, "true", forged)]
            return await asyncio.gather(*(attempt(task, script) for script in scripts))
        finally:
            await family.close()

    assert asyncio.run(asyncio.wait_for(work(), 200)) == [1.0, 0.0, 0.0]


def test_splits_differ_and_an_index_gives_the_same_task():
    family = TerminalFamily(1)
    texts = [family.task(split, 5).harbor.files for split in ("train", "dev", "test")]
    assert texts[0] != texts[1] != texts[2] and family.task("dev", 5).harbor.files == texts[1]
    assert family.task("train", 5).domain == family.task("test", 5).domain == "join"
    assert family.demonstration(0).messages[-1].content == "submitted"
