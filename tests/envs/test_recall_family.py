"""recall: answers are in the list, splits do not overlap, the grader holds."""

import asyncio

from arcforge.core.tasks import Family
from arcforge.envs.recall.family import DEMONSTRATED, RecallFamily
from arcforge.envs.registry import family


def test_the_grader_accepts_the_answer_and_nothing_else():
    made = RecallFamily(1)
    for split in ("train", "dev", "test"):
        for index in range(6):
            asyncio.run(made.validate(split, index))


def test_questions_are_repeatable_and_splits_do_not_meet():
    made, again = RecallFamily(0), RecallFamily(0)
    assert [made.question("test", i) for i in range(30)] == [again.question("test", i) for i in range(30)]
    keys = {split: {made.question(split, i).key for i in range(60)} for split in ("train", "dev", "test")}
    assert not keys["train"] & keys["test"] and not keys["dev"] & keys["test"]
    assert all(len(k) == 60 for k in keys.values())


def test_demonstrations_are_right_and_the_acknowledgement_is_not_trained():
    made: Family = family("recall", 3)
    for index in range(9):
        conversation = made.demonstration(index)
        _, given, ok, *turns = conversation.messages
        assert ok.content == "ok" and not ok.trained and len(turns) == 2 * DEMONSTRATED
        listed = given.content.split("\n")
        keys = [line.split("=")[0] for line in listed]
        for question, answer in zip(turns[::2], turns[1::2]):
            assert answer.trained
            asked = question.content.removesuffix("?")
            if asked.endswith(" and the next"):
                place = keys.index(asked.removesuffix(" and the next"))
                assert answer.content.split("\n") == listed[place : place + 2]
            else:
                assert answer.content.split("\n") == [listed[keys.index(key)] for key in asked.split(",")]
