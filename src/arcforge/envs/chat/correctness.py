"""Foundational correctness: instructions whose fulfilment rules can check."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.chat.item import Item, replies
from arcforge.rewards.criteria import has_length, repeats_at_most, says, uses_one_of
from arcforge.rewards.rules import BeginsWith, Case, EndsWith, Exact, Repeats, Rule, WordCount

# What a free reply goes on with after its first word; the number asked for cuts it.
REST = "is a good friend of the new day and the old night".split()
# Words that also occur in capitals: few, since each pair has to be learnt by heart.
CAPITALS = (
    "ant",
    "bee",
    "cat",
    "dog",
    "fox",
    "owl",
    "pig",
    "rat",
    "gold",
    "moon",
    "rain",
    "rose",
    "sand",
    "snow",
    "star",
    "sun",
)


def make(rng: random.Random) -> Item:
    return rng.choice((_length, _opening, _repeat, _capitals, _ordered))(rng)


def _length(rng: random.Random) -> Item:
    """Exactly n words that begin with a given one."""
    word, count = rng.choice(NAMES), rng.randint(3, 8)
    good = " ".join([word, *REST[: count - 1]])
    longer, shorter = " ".join([word, *REST[:count]]), " ".join([word, *REST[: count - 2]])
    return _item(
        "length",
        f"Begin with {word} and write exactly {count} words.",
        good,
        replies(good, longer, shorter, " ".join(REST[:count])),
        (BeginsWith(word=word), WordCount(least=count, most=count)),
        (has_length(count, count), repeats_at_most(2)),
    )


def _opening(rng: random.Random) -> Item:
    """Given first and last words, few words in all."""
    first, last = rng.sample(NAMES, 2)
    good = f"{first} is a friend of {last}"
    return _item(
        "opening",
        f"Begin with {first} and end with {last}.",
        good,
        replies(good, f"{last} is a friend of {first}", f"{first} is a friend of the day", f"the {first} and {last}"),
        (BeginsWith(word=first), EndsWith(word=last), WordCount(least=3, most=12)),
        (has_length(3, 12), repeats_at_most(2)),
    )


def _repeat(rng: random.Random) -> Item:
    word, times = rng.choice(NAMES), rng.randint(2, 6)
    good = " ".join([word] * times)
    return _item(
        "repeat",
        f"Write {word} {times} times.",
        good,
        replies(good, " ".join([word] * (times + 1)), " ".join([word] * (times - 1)), f"{word} {times} times"),
        (Repeats(word=word, times=times), WordCount(least=times, most=times)),
        (uses_one_of((word,)), has_length(times, times)),
    )


def _capitals(rng: random.Random) -> Item:
    chosen = rng.sample(CAPITALS, rng.randint(2, 4))
    upper = rng.random() < 0.5
    shown = " ".join(chosen).lower() if upper else " ".join(chosen).upper()
    good = shown.upper() if upper else shown.lower()
    half = " ".join([good.split()[0], *shown.split()[1:]])
    return _item(
        "case",
        f"Write in {'upper' if upper else 'lower'} case: {shown}",
        good,
        replies(good, shown, half, " ".join(good.split()[:-1])),
        (Case(case="upper" if upper else "lower"), Exact(expected=good, cased=True)),
        (says(good), has_length(len(chosen), len(chosen))),
    )


def _ordered(rng: random.Random) -> Item:
    """The words after their numbers; the reply lists them from 1 on."""
    chosen = rng.sample(NAMES, rng.randint(3, 5))
    numbered = list(enumerate(chosen, start=1))
    rng.shuffle(numbered)
    good = " ".join(chosen)
    return _item(
        "order",
        f"List in order: {', '.join(f'{number} {word}' for number, word in numbered)}",
        good,
        replies(
            good, " ".join(word for _, word in numbered), " ".join(chosen[:-1]), " ".join([*chosen[1:], chosen[0]])
        ),
        (Exact(expected=good),),
        (says(good), repeats_at_most(1)),
    )


def _item(
    kind: str, request: str, good: str, flawed: tuple[str, ...], rules: tuple[Rule, ...], rubric: tuple[str, ...]
) -> Item:
    return Item("correctness", kind, f"correctness:{request}", request, good, flawed, rules, rubric)
