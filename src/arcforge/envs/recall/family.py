"""The family "recall": questions about a list given some turns before, graded 0 or 1."""

from __future__ import annotations

import random
from dataclasses import dataclass

from arcforge.core.messages import Message, Thinking
from arcforge.core.tasks import Conversation, Split
from arcforge.core.words import NAMES
from arcforge.envs.single_turn import SingleTurnTask, draw, validate
from arcforge.rewards.rules import Exact, RuleScorer, dump_rules

SYSTEM = "You keep lists. Answer with the lines asked for."
LINES = (10, 16)
MAX_TOKENS = 16
DEMONSTRATED = 4  # questions about one list

Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Question:
    """lines: (key, value), keys and values all different. answer: one or two lines of the list. wrong: the other lines."""

    domain: str
    lines: Lines
    text: str
    answer: str

    @property
    def key(self) -> str:
        return f"recall:{self.text}:{self.lines}"

    @property
    def wrong(self) -> list[str]:
        return [line for line in map(_line, self.lines) if line != self.answer]


def make(domain: str, rng: random.Random) -> Question:
    count = rng.randint(*LINES)
    words = rng.sample(NAMES, 2 * count)
    return ask(domain, tuple(zip(words[:count], words[count:], strict=True)), rng)


def ask(domain: str, lines: Lines, rng: random.Random) -> Question:
    """A question about these lines."""
    place = rng.randrange(len(lines) - 1)
    first, following = lines[place], lines[place + 1]
    other = rng.choice([line for line in lines if line != first])
    text, wanted = {
        "line": (f"{first[0]}?", [first]),
        "two": (f"{first[0]},{other[0]}?", [first, other]),
        "next": (f"{first[0]} and the next?", [first, following]),
    }[domain]
    return Question(domain, lines, text, "\n".join(map(_line, wanted)))


def _key(question: Question) -> str:
    return question.key


def _line(line: tuple[str, str]) -> str:
    return f"{line[0]}={line[1]}"


class RecallFamily:
    """Index i is a question of domain i modulo 3."""

    name = "recall"
    domains = ("line", "two", "next")

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
        """DEMONSTRATED questions about one list, all of the train split."""
        rng = random.Random(f"recall:{self._seed}:demonstration:{index}")
        question = self._draw("train", index, rng)
        messages = [*opening(question), Message(role="assistant", content=question.answer)]
        for _ in range(DEMONSTRATED - 1):
            domain = rng.choice(self.domains)
            another = draw(lambda random_, d=domain: ask(d, question.lines, random_), _key, "train", rng)
            messages.append(Message(role="user", content=another.text))
            messages.append(Message(role="assistant", content=another.answer))
        return Conversation(
            messages=tuple(messages),
            thinking=Thinking(enabled=False),
            family=self.name,
            domain=question.domain,
        )

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the grader accepts the answer and refuses every other line of the list, and silence."""
        question = self.question(split, index)
        bad = [Message(role="assistant", content=text) for text in (*question.wrong, "", f"{question.answer} it is")]
        await validate(self.task(split, index), Message(role="assistant", content=question.answer), bad)

    async def close(self) -> None:
        """Nothing is shared between episodes."""

    def _draw(self, split: Split, index: int, rng: random.Random) -> Question:
        domain = self.domains[index % len(self.domains)]
        return draw(lambda random_: make(domain, random_), _key, split, rng)


def opening(question: Question) -> tuple[Message, ...]:
    """System prompt, the list, its acknowledgement (context only), the question."""
    return (
        Message(role="system", content=SYSTEM),
        Message(role="user", content="\n".join(map(_line, question.lines))),
        Message(role="assistant", content="ok", trained=False),
        Message(role="user", content=question.text),
    )
