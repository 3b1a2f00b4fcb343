"""Preference pairs that an outcome reward model is trained on: a good reply against a worse one to the same request."""

from __future__ import annotations

import random

from arcforge.core.tasks import Conversation
from arcforge.envs.chat import emotion, quality
from arcforge.envs.chat.family import conversation
from arcforge.envs.chat.item import Item
from arcforge.envs.single_turn import draw

GENERIC_SHARE = 0.3  # of worse replies that would be bad after any request


def preference_pairs(count: int, seed: int = 0) -> list[tuple[Conversation, Conversation]]:
    """(good, bad) pairs from train requests, by turns of the emotional and the quality dimension.

    Most bad replies miss the request in one way; the others are degenerate whatever was asked: cut short, looped,
    shuffled, or an echo of the request.
    """
    pairs = []
    for index in range(count):
        rng = random.Random(f"chat:{seed}:preference:{index}")
        item = draw((emotion.make, quality.make)[index % 2], lambda item: item.key, "train", rng)
        pairs.append((conversation(item, item.good), conversation(item, _worse(item, rng))))
    return pairs


def _worse(item: Item, rng: random.Random) -> str:
    if rng.random() >= GENERIC_SHARE:
        return rng.choice(item.flawed)
    words = item.good.split()
    shuffled = rng.sample(words, len(words))
    candidates = [
        "ok",
        item.request,
        f"{item.good} {item.good}",
        " ".join(words[: len(words) // 2]),
        " ".join(shuffled),
    ]
    return rng.choice([text for text in candidates if text and text != item.good])
