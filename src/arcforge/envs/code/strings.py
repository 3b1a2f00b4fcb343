"""strings: two to six transformations of a text, one after another."""

from __future__ import annotations

import random

from arcforge.core.words import NAMES
from arcforge.envs.code.problem import problem
from arcforge.envs.levelled import Exercise

KIND = "strings"
VOWELS = "aeiou"


def make(rng: random.Random, level: int) -> Exercise:
    """One step more than the level says: of one step there are too few problems."""
    steps, lines = [], []
    for _ in range(level + 1):
        text, line = rng.choice(_STEPS)(rng)
        while steps and steps[-1] == text:
            text, line = rng.choice(_STEPS)(rng)
        steps.append(text)
        lines.append(line)
    told = "\n".join(f"{number}. {text}" for number, text in enumerate(steps, 1))
    source = "\n".join(["def solve(s):", *(f"    {line}" for line in lines), "    return s"])
    calls = [(_text(rng),) for _ in range(10)] + [("",), ("a",)]
    return problem(
        KIND, level, tuple(steps),
        f"Write a Python function of one string of lower-case letters and spaces that does this, in order, and returns the result:\n{told}",
        source, calls, (f"{lines[-1]}\n    return s", "s = s + 'x'\n    return s"),
    )  # fmt: skip


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(NAMES) for _ in range(rng.randint(1, 5)))


def _reverse(rng: random.Random) -> tuple[str, str]:
    return "Reverse the text.", "s = s[::-1]"


def _drop(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(2, 6)
    return (
        f"Remove every character whose position, counted from 1, is a multiple of {n}.",
        f"s = ''.join(c for i, c in enumerate(s, 1) if i % {n})",
    )


def _replace(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample("abcdefghilmnoprstuw", 2)
    return f"Replace every {a!r} by {b!r}.", f"s = s.replace({a!r}, {b!r})"


def _shift(rng: random.Random) -> tuple[str, str]:
    k = rng.randint(1, 25)
    return (
        f"Move each letter {k} places on in the alphabet, from 'z' on to 'a'; other characters stay.",
        f"s = ''.join(chr((ord(c) - 97 + {k}) % 26 + 97) if 'a' <= c <= 'z' else c for c in s)",
    )


def _rotate(rng: random.Random) -> tuple[str, str]:
    k = rng.randint(1, 7)
    return (
        f"Move the first {k} characters to the end (of a shorter text, all of them: it stays as it is).",
        f"s = s[{k}:] + s[:{k}]",
    )


def _double(rng: random.Random) -> tuple[str, str]:
    letters = "".join(sorted(rng.sample("aeioulnrst", 2)))
    return (
        f"Write each {letters[0]!r} and each {letters[1]!r} twice.",
        f"s = ''.join(c * 2 if c in {letters!r} else c for c in s)",
    )


def _collapse(rng: random.Random) -> tuple[str, str]:
    return (
        "Of every run of equal characters keep one.",
        "s = ''.join(c for i, c in enumerate(s) if i == 0 or s[i - 1] != c)",
    )


def _word_order(rng: random.Random) -> tuple[str, str]:
    return (
        "Put the words (split at white space) into reverse order, joined by one space.",
        "s = ' '.join(s.split()[::-1])",
    )


def _longest(rng: random.Random) -> tuple[str, str]:
    n = rng.randint(3, 6)
    return (
        f"Keep the words (split at white space) of at least {n} characters, joined by one space.",
        f"s = ' '.join(w for w in s.split() if len(w) >= {n})",
    )


_STEPS = (_reverse, _drop, _replace, _shift, _rotate, _double, _collapse, _word_order, _longest)
