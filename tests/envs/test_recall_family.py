"""recall: answers are in the list, splits do not overlap, the grader holds."""

import asyncio

from arcforge.core.tasks import Family
from arcforge.envs.recall.family import RecallFamily
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


def test_demonstrations_are_right_and_only_the_last_answer_is_trained():
    made: Family = family("recall", 3)
    for index in range(9):
        conversation = made.demonstration(index)
        *_, ok, question, answer = conversation.messages
        assert ok.content == "ok" and not ok.trained and answer.trained
        listed = dict(line.split("=") for line in conversation.messages[1].content.split("\n"))
        asked = question.content.rstrip("?").split()[-1]
        if conversation.domain == "value":
            assert listed[asked] == answer.content
        elif conversation.domain == "key":
            assert listed[answer.content] == asked
        else:
            keys = list(listed)
            assert keys[keys.index(asked) + 1] == answer.content
