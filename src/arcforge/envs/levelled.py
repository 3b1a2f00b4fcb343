"""Families of generated exercises: several kinds, each at five levels of difficulty, with a right answer and wrong ones.

Index i is an exercise of kind i modulo the number of kinds; the levels take turns after each round of the kinds. A split is
decided by a hash of an exercise's facts (single_turn.split_of), so splits never overlap, whatever the seed and the level.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking
from arcforge.core.protocols import Scorer
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.single_turn import SingleTurnTask, draw, validate

LEVELS = (1, 2, 3, 4, 5)
MAX_TOKENS = 4096


@dataclass(frozen=True)
class Exercise:
    """question: the user's text. solution: the worked way to `answer`, "" where there is none. wrong: answers that must earn nothing.

    facts: what the answer depends on, and nothing else: two wordings of the same facts are the same exercise. reference:
    what the checker of the family needs beside the answer.
    """

    kind: str
    level: int
    facts: tuple[object, ...]
    question: str
    solution: str
    answer: str
    wrong: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.facts}"


Maker = Callable[[random.Random, int], Exercise]


class LevelledFamily:
    """Implements core.tasks.Family. A family of its own sets the class variables and says how an answer is written.

    levels: those that take turns, each 1 to 5. kinds: those that take turns; none stands for all. The exercises depend on the
    class, the seed, levels and kinds; `name` is what they say, and the registry sets it to what was asked for.
    """

    name: str
    system: ClassVar[str]
    makers: ClassVar[Mapping[str, Maker]]

    def __init__(
        self,
        scorer: Scorer,
        seed: int,
        levels: Sequence[int],
        kinds: Sequence[str],
    ) -> None:
        unknown = [kind for kind in kinds if kind not in self.makers]
        if unknown:
            raise UserError(f"{self.name} has no kind {unknown[0]!r}; choose from {', '.join(self.makers)}")
        if not levels or not set(levels) <= set(LEVELS):
            raise UserError(f"{self.name}: levels {tuple(levels)}: choose from {', '.join(map(str, LEVELS))}")
        self.seed, self.levels = seed, tuple(levels)
        self.domains = tuple(kinds) or tuple(self.makers)
        self.scorer = scorer

    def reply(self, answer: str, solution: str = "") -> Message:
        """A reply that ends in `answer`, as the system prompt asks for it."""
        return Message(role="assistant", content=f"The answer is \\boxed{{{answer}}}.", reasoning=solution)

    def fits(self, exercise: Exercise) -> bool:
        """Whether a drawn exercise is worth asking; another is drawn in place of one that is not."""
        return True

    def exercise(self, split: Split, index: int) -> Exercise:
        """The exercise behind `task(split, index)`."""
        return self._draw(split, index, random.Random(f"{type(self).name}:{self.seed}:{split}:{index}"))

    def demonstrated(self, index: int) -> Exercise:
        """The exercise behind `demonstration(index)`, one of the train split."""
        return self._draw("train", index, random.Random(f"{type(self).name}:{self.seed}:demonstrated:{index}"))

    def task(self, split: Split, index: int) -> SingleTurnTask:
        exercise = self.exercise(split, index)
        return SingleTurnTask(
            task_id=f"{self.name}/{exercise.kind}/{exercise.level}/{split}/{self.seed}-{index}",
            family=self.name,
            domain=exercise.kind,
            level=exercise.level,
            messages=self.opening(exercise),
            scorer=self.scorer,
            reference={"answer": exercise.answer, **exercise.reference},
            max_tokens=MAX_TOKENS,
        )

    def demonstration(self, index: int) -> Conversation:
        exercise = self.demonstrated(index)
        reply = self.reply(exercise.answer, exercise.solution)
        messages = (*self.opening(exercise), reply)
        return Conversation(messages=messages, thinking=Thinking(), family=self.name, domain=exercise.kind)

    def opening(self, exercise: Exercise) -> tuple[Message, ...]:
        return (Message(role="system", content=self.system), Message(role="user", content=exercise.question))

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the checker accepts the answer and refuses the wrong ones and silence."""
        exercise = self.exercise(split, index)
        bad = [self.reply(answer, exercise.solution) for answer in exercise.wrong]
        silence = Message(role="assistant", content="", reasoning=exercise.solution)
        await validate(self.task(split, index), self.reply(exercise.answer, exercise.solution), [*bad, silence])

    async def close(self) -> None:
        """Nothing is shared between episodes."""

    def _draw(self, split: Split, index: int, rng: random.Random) -> Exercise:
        kind = self.domains[index % len(self.domains)]
        level = self.levels[index // len(self.domains) % len(self.levels)]
        return draw(
            lambda random_: self.makers[kind](random_, level), lambda exercise: exercise.key, split, rng, self.fits
        )
