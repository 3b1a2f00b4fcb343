"""The family "recall": two-turn questions about a given list, graded 0 or 1."""

from __future__ import annotations

import random
from dataclasses import dataclass

from arcforge.core.messages import Message, Thinking
from arcforge.core.tasks import Conversation, Split
from arcforge.core.words import NAMES
from arcforge.envs.single_turn import SingleTurnTask, draw, validate
from arcforge.rewards.rules import Exact, RuleScorer, dump_rules

SYSTEM = "You keep lists. Answer with one word."
LINES = (10, 16)
MAX_TOKENS = 16


@dataclass(frozen=True)
class Question:
    """lines: (key, value), keys and values all different. wrong: other words of the list."""

    domain: str
    lines: tuple[tuple[str, str], ...]
    text: str
    answer: str

    @property
    def key(self) -> str:
        return f"recall:{self.text}:{self.lines}"

    @property
    def wrong(self) -> list[str]:
        return [word for line in self.lines for word in line if word != self.answer]


def make(domain: str, rng: random.Random) -> Question:
    count = rng.randint(*LINES)
    words = rng.sample(NAMES, 2 * count)
    lines = tuple(zip(words[:count], words[count:], strict=True))
    place = rng.randrange(count - 1)
    key, value = lines[place]
    text, answer = {
        "value": (f"value of {key}?", value),
        "key": (f"key of {value}?", key),
        "next": (f"next key after {key}?", lines[place + 1][0]),
    }[domain]
    return Question(domain, lines, text, answer)


class RecallFamily:
    """Index i is a question of domain i modulo 3."""

    name = "recall"
    domains = ("value", "key", "next")

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._scorer = RuleScorer()

    def question(self, split: Split, index: int) -> Question:
        return self._draw(split, index, random.Random(f"recall:{self._seed}:{split}:{index}"))

    def task(self, split: Split, index: int) -> SingleTurnTask:
        question = self.question(split, index)
        return SingleTurnTask(
            task_id=f"{self.name}/{question.domain}/{split}/{self._seed}-{index}",
            family=self.name,
            domain=question.domain,
            messages=opening(question),
            scorer=self._scorer,
            reference={"answer": question.answer, "rules": dump_rules([Exact(expected=question.answer)])},
            thinking=Thinking(enabled=False),
            max_tokens=MAX_TOKENS,
        )

    def demonstration(self, index: int) -> Conversation:
        question = self._draw("train", index, random.Random(f"recall:{self._seed}:demonstration:{index}"))
        answer = Message(role="assistant", content=question.answer)
        return Conversation(
            messages=(*opening(question), answer),
            thinking=Thinking(enabled=False),
            family=self.name,
            domain=question.domain,
        )

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the grader accepts the answer and refuses every other word of the list, and silence."""
        question = self.question(split, index)
        bad = [Message(role="assistant", content=text) for text in (*question.wrong, "", f"{question.answer} it is")]
        await validate(self.task(split, index), Message(role="assistant", content=question.answer), bad)

    async def close(self) -> None:
        """Nothing is shared between episodes."""

    def _draw(self, split: Split, index: int, rng: random.Random) -> Question:
        domain = self.domains[index % len(self.domains)]
        return draw(lambda random_: make(domain, random_), lambda question: question.key, split, rng)


def opening(question: Question) -> tuple[Message, ...]:
    """System prompt, the list, its acknowledgement (context only), the question."""
    text = "\n".join(f"{key}={value}" for key, value in question.lines)
    return (
        Message(role="system", content=SYSTEM),
        Message(role="user", content=text),
        Message(role="assistant", content="ok", trained=False),
        Message(role="user", content=question.text),
    )
