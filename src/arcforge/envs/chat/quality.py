"""Task-specific quality: processing of short texts, with one right result and replies that come close."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.chat.item import Item, replies
from arcforge.rewards.criteria import adds_nothing_to, has_length, has_the_words_of, says
from arcforge.rewards.rules import Exact


def make(rng: random.Random) -> Item:
    return rng.choice((_reverse, _longest, _replace, _dedupe, _sort))(rng)


def _reverse(rng: random.Random) -> Item:
    given = rng.sample(NAMES, rng.randint(3, 5))
    good = given[::-1]
    return _item("reverse", f"Reverse the list: {' '.join(given)}", given, good, given, good[:-1], _swapped(good, rng))


def _longest(rng: random.Random) -> Item:
    """Lengths differ by at least two letters between the longest word and any other."""
    long = [name for name in NAMES if len(name) >= 6]
    short = [name for name in NAMES if len(name) <= 4]
    longest, others = rng.choice(long), rng.sample(short, rng.randint(2, 4))
    given = [longest, *others]
    rng.shuffle(given)
    return _item(
        "longest", f"Give the longest word: {' '.join(given)}", given, [longest], others[:1], others[1:2], given
    )


def _replace(rng: random.Random) -> Item:
    *given, new = rng.sample(NAMES, rng.randint(4, 6))
    place = rng.randrange(len(given))
    old = given[place]
    good = [*given[:place], new, *given[place + 1 :]]
    wrong_place = [*given[: place - 1], new, *given[place:]] if place else [given[0], new, *given[2:]]
    request = f"Replace {old} by {new}: {' '.join(given)}"
    return _item("replace", request, [*given, new], good, given, good[:-1], wrong_place)


def _dedupe(rng: random.Random) -> Item:
    good = rng.sample(NAMES, rng.randint(2, 4))
    given = list(good)
    for word in rng.choices(good, k=2):
        # After its first place, so that the order of first occurrences stays that of `good`.
        given.insert(rng.randint(given.index(word) + 1, len(given)), word)
    return _item("dedupe", f"Remove repeated words: {' '.join(given)}", given, good, given, good[:-1], given[:-1])


def _sort(rng: random.Random) -> Item:
    given = [str(digit) for digit in rng.sample(range(10), rng.randint(3, 5))]
    good = sorted(given)
    return _item("sort", f"Sort the numbers: {' '.join(given)}", given, good, given, good[:-1], _swapped(good, rng))


def _swapped(text: list[str], rng: random.Random) -> list[str]:
    """Two neighbours change places."""
    place = rng.randrange(len(text) - 1)
    return [*text[:place], text[place + 1], text[place], *text[place + 2 :]]


def _item(kind: str, request: str, given: list[str], good: list[str], *flawed: list[str]) -> Item:
    text = " ".join(good)
    return Item(
        dimension="quality",
        kind=kind,
        key=f"quality:{request}",
        request=request,
        good=text,
        flawed=replies(text, *(" ".join(words) for words in flawed), f"the answer is {text}"),
        rules=(Exact(expected=text),),
        rubric=(
            says(text),
            has_the_words_of(text),
            adds_nothing_to(" ".join(given)),
            has_length(len(good), len(good)),
        ),
    )
