"""One request with a good reply, flawed ones, and how replies to it are graded."""

from __future__ import annotations

from dataclasses import dataclass

from arcforge.rewards.rules import Rule


@dataclass(frozen=True)
class Item:
    """good: a reply that passes every rule and criterion. flawed: replies that fail at least one, each another way.

    key: the content that decides the split. dimension: "correctness" | "emotion" | "quality". rubric: sentences for a judge.
    """

    dimension: str
    kind: str
    key: str
    request: str
    good: str
    flawed: tuple[str, ...]
    rules: tuple[Rule, ...]
    rubric: tuple[str, ...]


def replies(good: str, *candidates: str) -> tuple[str, ...]:
    """The candidates that are not the good reply, each once."""
    return tuple(text for text in dict.fromkeys(candidates) if text and text != good)
