"""The sentences rubrics are made of, and what each of them means.

A criterion is one English sentence, so that any judge can read it. The ones written here also have an exact meaning:
`holds` decides them, and the scripted judge uses it. A sentence from elsewhere has none, and `holds` answers None.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from arcforge.rewards.reply import folded_words, normalised
from arcforge.rewards.rules import Before, ContainsAny, WordCount


def uses_one_of(words: Sequence[str]) -> str:
    return f"The reply uses at least one of these words: {', '.join(words)}."


def uses_none_of(words: Sequence[str]) -> str:
    return f"The reply uses none of these words: {', '.join(words)}."


def uses_before(first: Sequence[str], second: Sequence[str]) -> str:
    return (
        f"The reply uses one of these words: {', '.join(first)}; and does so before any of these: {', '.join(second)}."
    )


def has_length(least: int, most: int) -> str:
    return f"The reply has from {least} to {most} words."


def says(text: str) -> str:
    return f"The reply says exactly this and nothing else: {text}."


def has_the_words_of(text: str) -> str:
    return f"The reply has the same words as this, each as often, in any order: {text}."


def adds_nothing_to(text: str) -> str:
    return f"The reply uses no word that is missing here: {text}."


def repeats_at_most(times: int) -> str:
    return f"The reply uses no word more than {times} times."


def holds(criterion: str, reply: str) -> bool | None:
    """Whether the reply meets the criterion; None when the sentence is not one of this module's."""
    for pattern, check in _MEANINGS:
        match = pattern.fullmatch(criterion)
        if match:
            return check(match.groups(), reply)
    return None


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


Groups = Sequence[str]


def _repeats_at_most(groups: Groups, reply: str) -> bool:
    return all(count <= int(groups[0]) for count in Counter(folded_words(reply)).values())


_MEANINGS: tuple[tuple[re.Pattern[str], Callable[[Groups, str], bool]], ...] = (
    (
        re.compile(r"The reply uses at least one of these words: (.+)\."),
        lambda g, reply: ContainsAny(words=_list(g[0])).check(reply).passed,
    ),
    (
        re.compile(r"The reply uses none of these words: (.+)\."),
        lambda g, reply: not ContainsAny(words=_list(g[0])).check(reply).passed,
    ),
    (
        re.compile(r"The reply uses one of these words: (.+); and does so before any of these: (.+)\."),
        lambda g, reply: Before(first=_list(g[0]), second=_list(g[1])).check(reply).passed,
    ),
    (
        re.compile(r"The reply has from (\d+) to (\d+) words\."),
        lambda g, reply: WordCount(least=int(g[0]), most=int(g[1])).check(reply).passed,
    ),
    (
        re.compile(r"The reply says exactly this and nothing else: (.*)\.", re.DOTALL),
        lambda g, reply: normalised(reply) == normalised(g[0]),
    ),
    (
        re.compile(r"The reply has the same words as this, each as often, in any order: (.*)\.", re.DOTALL),
        lambda g, reply: Counter(folded_words(reply)) == Counter(folded_words(g[0])),
    ),
    (
        re.compile(r"The reply uses no word that is missing here: (.*)\.", re.DOTALL),
        lambda g, reply: set(folded_words(reply)) <= set(folded_words(g[0])),
    ),
    (re.compile(r"The reply uses no word more than (\d+) times\."), _repeats_at_most),
)
