"""What every family of generated exercises is held to, and a checker without a process for tests of many answers."""

import itertools

from arcforge.core.messages import Message
from arcforge.core.tasks import Family
from arcforge.envs.checking.client import Comparison
from arcforge.envs.single_turn import split_of

SPLITS = ("train", "dev", "test")


class DirectChecker:
    """The comparison of the checking process, in this process."""

    def __init__(self, module):
        self._module = module

    async def equal(self, kind, reference, answer):
        read = self._module.read_reference(reference)
        try:
            equal, note = self._module.compare(read, answer)
        except Exception as error:
            equal, note = False, str(error)
        return Comparison(equal=equal, note=note)

    async def close(self):
        pass


def hold_to_the_protocol(family, again, other_seed):
    """Deterministic in seed, split and index; kinds and levels take turns; splits do not meet."""
    made: Family = family
    for index in (0, 7, 23):
        assert made.task("dev", index).messages == again.task("dev", index).messages
        assert made.demonstration(index) == again.demonstration(index)
    indices = range(3 * len(made.domains))
    assert [family.exercise("train", i) for i in indices] != [other_seed.exercise("train", i) for i in indices]
    kinds = len(made.domains)
    for index in range(2 * kinds):
        task = made.task("test", index)
        assert (task.domain, task.level) == (made.domains[index % kinds], 1 + index // kinds)
        assert task.family == made.name and task.max_turns == 1 and not task.tools
    for index in range(5):
        conversation = made.demonstration(index)
        assert [m.role for m in conversation.messages] == ["system", "user", "assistant"]
        shown = family.demonstrated(index)
        assert conversation.messages[-1].reasoning == shown.solution and split_of(shown.key) == "train"


def hold_solutions_to_their_exercises(family, count):
    """Each exercise is worked out in words of its own: no sentence serves two of them."""
    shown = {(e := family.demonstrated(index)).key: e.solution for index in range(count)}
    assert all(shown.values()) and len(set(shown.values())) == len(shown) > count * 0.8


def hold_splits_apart(families, count):
    """Nor do the questions: two exercises of other facts do not ask the same."""
    asked: dict[str, str] = {}
    for split, family, index in itertools.product(SPLITS, families, range(count)):
        exercise = family.exercise(split, index)
        assert split_of(exercise.key) == split == asked.setdefault(exercise.question, split)


def reply(text):
    return Message(role="assistant", content=text)


async def reward(task, text):
    episode = await task.open()
    try:
        return (await episode.grade((*task.messages, reply(text)))).reward
    finally:
        await episode.close()
