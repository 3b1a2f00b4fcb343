"""The family "chat": three dimensions of general ability with a hybrid reward (GLM-5 report, section 3.4).

Requests are answered without thinking (turn-level thinking off, GLM-5 report, section 3.1). Demonstrations are good in
about three cases of five and otherwise miss what was asked in one way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from arcforge.core.messages import Message, Thinking
from arcforge.core.protocols import Scorer
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.chat import correctness, emotion, quality
from arcforge.envs.chat.item import Item
from arcforge.envs.single_turn import SingleTurnTask, draw, validate
from arcforge.rewards.hybrid import HybridScorer
from arcforge.rewards.judge import Judge
from arcforge.rewards.rubric_judge import RubricJudge
from arcforge.rewards.rules import RuleScorer, dump_rules

SYSTEM = (
    "You are a kind and exact helper. Do what is asked and add nothing. "
    "If there are words to list, write only the words with one space between them. "
    "If someone says how they feel, first name the feeling, then give one short idea."
)

MAX_TOKENS = 64
GOOD_SHARE = 0.6

_MAKERS: dict[str, Callable[[random.Random], Item]] = {
    "correctness": correctness.make,
    "emotion": emotion.make,
    "quality": quality.make,
}


def default_scorer() -> HybridScorer:
    """Rules and the scripted judge, no outcome model."""
    return HybridScorer({"rules": RuleScorer(), "judge": Judge(RubricJudge())})


class ChatFamily:
    """Index i is a request of dimension i modulo 3. Demonstrations come from the train split.

    scorer: grades every task with its reference {dimension, kind, rules, rubric}; rules and scripted judge by default.
    """

    name = "chat"
    domains = tuple(_MAKERS)

    def __init__(self, seed: int = 0, scorer: Scorer | None = None) -> None:
        self._seed = seed
        self._scorer = scorer or default_scorer()

    def item(self, split: Split, index: int) -> Item:
        """The request behind `task(split, index)`."""
        return self._draw(split, index, random.Random(f"chat:{self._seed}:{split}:{index}"))

    def task(self, split: Split, index: int) -> SingleTurnTask:
        item = self.item(split, index)
        return SingleTurnTask(
            task_id=f"{self.name}/{item.dimension}/{split}/{self._seed}-{index}",
            family=self.name,
            domain=item.dimension,
            messages=opening(item),
            scorer=self._scorer,
            reference=reference(item),
            thinking=Thinking(enabled=False),
            max_tokens=MAX_TOKENS,
        )

    def demonstrated(self, index: int) -> Item:
        """The request behind `demonstration(index)`."""
        return self._draw("train", index, random.Random(f"chat:{self._seed}:demonstrated:{index}"))

    def demonstration(self, index: int) -> Conversation:
        item, rng = self.demonstrated(index), random.Random(f"chat:{self._seed}:demonstration:{index}")
        return conversation(item, item.good if rng.random() < GOOD_SHARE else rng.choice(item.flawed))

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the scorer gives the good reply 1.0 and every flawed one less. For scorers without an outcome
        model, which gives no reply exactly 1.0."""
        item = self.item(split, index)
        bad = [Message(role="assistant", content=text) for text in (*item.flawed, item.request, "")]
        await validate(self.task(split, index), Message(role="assistant", content=item.good), bad)

    async def close(self) -> None:
        """Nothing is shared between episodes."""

    def _draw(self, split: Split, index: int, rng: random.Random) -> Item:
        make = _MAKERS[self.domains[index % len(self.domains)]]
        return draw(make, lambda item: item.key, split, rng)


def opening(item: Item) -> tuple[Message, ...]:
    return (Message(role="system", content=SYSTEM), Message(role="user", content=item.request))


def reference(item: Item) -> dict[str, Any]:
    """What a scorer needs to know about the item, as JSON data."""
    return {
        "dimension": item.dimension,
        "kind": item.kind,
        "rules": dump_rules(item.rules),
        "rubric": list(item.rubric),
    }


def conversation(item: Item, reply: str) -> Conversation:
    """The request answered with `reply`."""
    return Conversation(
        messages=(*opening(item), Message(role="assistant", content=reply)),
        thinking=Thinking(enabled=False),
        family=ChatFamily.name,
        domain=item.dimension,
    )
