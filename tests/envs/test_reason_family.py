"""The family reason: splits, demonstrations, grading."""

import asyncio
import re

import pytest

from arcforge.core.messages import Message, ToolCall
from arcforge.core.tasks import Family, Task
from arcforge.envs.reason import ReasonFamily
from arcforge.envs.reason.family import SYSTEM, careful
from arcforge.envs.registry import family
from arcforge.envs.single_turn import split_of

FAMILY = ReasonFamily()
PIECES = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|\s+|_")


def grade(task, *replies):
    async def run():
        episode = await task.open()
        verdict = await episode.grade((*task.messages, *replies))
        assert episode.done
        await episode.close()
        return verdict.reward

    return asyncio.run(run())


def test_the_registry_builds_it():
    built = family("reason", 5)
    assert isinstance(built, ReasonFamily)
    assert built.task("train", 0).messages == ReasonFamily(5).task("train", 0).messages


def test_it_keeps_the_protocols():
    built: Family = FAMILY
    task: Task = built.task("dev", 2)
    assert (task.family, task.domain, task.max_turns, task.tools) == ("reason", "logic", 1, ())
    assert task.thinking.enabled
    assert [m.role for m in task.messages] == ["system", "user"]


def test_deterministic_in_seed_split_and_index():
    assert FAMILY.problem("train", 9) == ReasonFamily().problem("train", 9)
    assert FAMILY.demonstration(9) == ReasonFamily().demonstration(9)
    different = [FAMILY.problem("train", 13), FAMILY.problem("dev", 9), ReasonFamily(1).problem("train", 9)]
    assert FAMILY.problem("train", 9) not in different


def test_domains_take_turns():
    assert [FAMILY.task("test", index).domain for index in range(8)] == [*FAMILY.domains, *FAMILY.domains]


def test_splits_never_meet_whatever_the_seed():
    keys = {
        split: {ReasonFamily(seed).problem(split, index).key for seed in (0, 1) for index in range(600)}
        for split in ("train", "dev", "test")
    }
    assert not keys["train"] & keys["dev"] and not keys["train"] & keys["test"] and not keys["dev"] & keys["test"]
    assert all(split_of(key) == split for split in keys for key in keys[split])


def test_split_shares():
    splits = [split_of(f"x{i}") for i in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("dev") / 5000 == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("domain", FAMILY.domains)
def test_ten_thousand_distinct_problems_per_domain(domain):
    """Few collisions among n draws bound the number of problems N from below: n * n / (2 N) are expected."""
    offset, draws = FAMILY.domains.index(domain), 1000
    keys = [FAMILY.problem("train", offset + 4 * index).key for index in range(draws)]
    assert draws - len(set(keys)) < draws * draws / (2 * 10_000) / 2


def test_the_system_prompt_is_constant_and_long_enough_to_matter():
    assert 80 <= len(PIECES.findall(SYSTEM)) <= 110
    assert {FAMILY.task("train", index).messages[0].content for index in range(40)} == {SYSTEM}


def test_demonstrations_are_right_about_half_of_the_time_and_always_after_careful_thought():
    right = careful_ones = guessed_right = 0
    for index in range(2000):
        problem, conversation = FAMILY.demonstrated(index), FAMILY.demonstration(index)
        assert conversation.messages[1].content == problem.question
        assert split_of(problem.key) == "train"
        reply = conversation.messages[-1]
        right += reply.content == problem.answer
        if reply.reasoning == problem.trace:
            careful_ones += 1
            assert reply.content == problem.answer
        else:
            guessed_right += reply.content == problem.answer
    assert 0.45 <= right / 2000 <= 0.55
    assert 0.35 <= careful_ones / 2000 <= 0.45
    assert guessed_right / (2000 - careful_ones) < 0.25


def test_the_grader_accepts_answers_and_refuses_the_rest():
    for index in range(40):
        asyncio.run(FAMILY.validate("test", index))


def test_grading():
    task, problem = FAMILY.task("test", 0), FAMILY.problem("test", 0)
    assert grade(task, careful(problem)) == 1.0
    assert grade(task, Message(role="assistant", content=f" {problem.answer}\n", reasoning="")) == 1.0
    unfinished = Message(role="assistant", content="", reasoning=f"{problem.trace};{problem.answer}")
    assert grade(task, unfinished) == 0.0
    call = Message(role="assistant", content=problem.answer, tool_calls=(ToolCall(name="python"),))
    assert grade(task, call) == 0.0
    assert grade(task, call, Message(role="tool", content="there is no tool")) == 0.0


def test_a_tool_call_is_answered_in_text():
    async def run():
        return await (await FAMILY.task("test", 0).open()).call(ToolCall(name="python"))

    assert "no tool python" in asyncio.run(run())
