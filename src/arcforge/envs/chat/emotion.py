"""Emotional intelligence: someone says what they feel and why; a good reply names the feeling before it advises."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.chat.item import Item, replies
from arcforge.rewards.criteria import has_length, repeats_at_most, uses_before, uses_none_of, uses_one_of
from arcforge.rewards.rules import Before, ContainsAny, WordCount

HEAVY = ("sad", "angry", "tired", "afraid", "lonely", "worried")
LIGHT = ("happy", "proud", "calm", "glad")
LOSSES = ("is lost", "is gone", "is late", "is old", "is cold")
GAINS = ("is here", "is new", "is home", "is big", "is good")
TIMES = ("today", "tonight", "now")

HEAVY_OPENINGS = ("sorry you feel {}", "it is hard to feel {}")
LIGHT_OPENINGS = ("great that you feel {}", "so nice that you feel {}")
EMPATHY = {"heavy": ("sorry", "hard"), "light": ("great", "nice")}
ADVICE = {
    "heavy": ("take a walk and rest", "talk with a friend", "rest at home and sleep well"),
    "light": ("enjoy the day", "tell a friend", "share the good news"),
}
ADVISING = ("take", "talk", "rest", "enjoy", "tell", "share")
DISMISSALS = ("that is not a big thing", "you must not feel that", "who cares")
DISMISSING = ("not", "must", "cares")


def make(rng: random.Random) -> Item:
    mood = rng.choice(("heavy", "light"))
    feeling = rng.choice(HEAVY if mood == "heavy" else LIGHT)
    name, event, time = rng.choice(NAMES), rng.choice(LOSSES if mood == "heavy" else GAINS), rng.choice(TIMES)
    request = f"I feel {feeling} {time} because my {name} {event}."
    opening = rng.choice(HEAVY_OPENINGS if mood == "heavy" else LIGHT_OPENINGS)
    advice = rng.choice(ADVICE[mood])
    good = f"{opening.format(feeling)} about your {name}. {advice}."
    return Item(
        dimension="emotion",
        kind=mood,
        key=f"emotion:{request}",
        request=request,
        good=good,
        flawed=_flawed(good, opening, feeling, name, advice, rng),
        rules=(
            ContainsAny(words=(feeling,)),
            ContainsAny(words=(name,)),
            Before(first=EMPATHY[mood], second=ADVISING),
            WordCount(least=6, most=24),
        ),
        rubric=(
            uses_one_of((feeling,)),
            uses_before(EMPATHY[mood], ADVISING),
            uses_before((feeling,), ADVISING),
            uses_one_of(ADVISING),
            uses_none_of(DISMISSING),
            uses_none_of(tuple(other for other in (*HEAVY, *LIGHT) if other != feeling)),
            has_length(6, 24),
            repeats_at_most(2),
        ),
    )


def _flawed(good: str, opening: str, feeling: str, name: str, advice: str, rng: random.Random) -> tuple[str, ...]:
    """Advice alone, the wrong feeling, advice before empathy, dismissal, and a loop."""
    other = rng.choice([word for word in (*HEAVY, *LIGHT) if word != feeling])
    return replies(
        good,
        f"{advice}.",
        f"{opening.format(other)} about your {name}. {advice}.",
        f"{advice}. {opening.format(feeling)} about your {name}.",
        f"{rng.choice(DISMISSALS)}. {advice}.",
        " ".join([opening.format(feeling)] * 4),
    )
