"""Generated and handwritten terminal tasks: the same from the same seed, and fit where bubblewrap can run them."""

import asyncio
import shutil

import pytest

from arcforge.core.errors import UserError
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.generate import DIFFICULTIES, FAMILIES, generate
from arcforge.envs.terminal.handwritten.collection import handwritten
from arcforge.envs.terminal.harbor import HarborTask, read_task, write_task
from arcforge.envs.terminal.sandboxes import SandboxRunner

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_is_a_function_of_its_family_seed_and_difficulty(family, tmp_path):
    for difficulty in DIFFICULTIES:
        task = generate(family, 3, difficulty)
        assert task == generate(family, 3, difficulty) != generate(family, 4, difficulty)
        assert not task.problem() and "solution/solve.sh" in task.files
        assert read_task(write_task(task, tmp_path)) == task


def test_what_cannot_be_generated():
    with pytest.raises(UserError):
        generate("dancing", 0, 1)
    with pytest.raises(UserError):
        generate("text", 0, 9)


def test_handwritten_tasks_are_whole():
    tasks = handwritten()
    assert len(tasks) >= 20 and len({task.name for task in tasks}) == len(tasks)
    assert not any(task.problem() for task in tasks)


async def admitted(task):
    async with SandboxRunner() as runner:
        return await admit(task, runner)


@needs_bubblewrap
def test_a_sound_task_is_admitted_and_every_probe_was_run():
    found = asyncio.run(admitted(generate("csv", 1, 1)))
    assert found.admitted, found.reason
    assert found.outcomes["oracle-1"] == found.outcomes["oracle-2"] == 1.0
    assert len(found.outcomes) > 5 and all(v != 1.0 for k, v in found.outcomes.items() if "oracle" not in k)


@needs_bubblewrap
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"solution/solve.sh": b"true\n"}, "oracle does not pass"),
        ({"solution/solve.sh": b"exit 3\n"}, "oracle ended with 3"),
        ({"tests/test.sh": b"echo 1 > /logs/verifier/reward.txt\n"}, "nothing"),
    ],
)
def test_an_unsound_task_is_rejected_with_its_reason(changed, told):
    task = generate("text", 1, 1)
    broken = HarborTask(task.name, task.instruction, task.config, {**task.files, **changed}, task.executable)
    found = asyncio.run(admitted(broken))
    assert not found.admitted and told in found.reason
