"""Copying drills: short rows in which a token can be told only by finding where it stood before.

Content copying (induction) does not form by itself in the tokens a laptop can afford, and everything agentic needs it.
Each drill repeats random things at varying distances; plain repetition of a passage would teach fixed offsets instead.
Only what is predictable is trained.

    recall      river=fox ... river=fox           the value of a key seen before
    expression  fox.py: lake(a, 3) ...            the same expression after the same file name
    path        fox/lake/moon ... fox/lake/moon   the rest of a path from its first name
    echo        open fox.py ... read fox.py       the name opened last, some lines later

A fifth kind is not copying: `facts` (3+4=7, 8//3=2, true and false=false, 7>3 yes), what a child knows before it reasons.
"""

from __future__ import annotations

import random
from typing import Literal, get_args

from arcforge.data.packing import Tokens
from arcforge.data.pieces import Draft, Pieces

Kind = Literal["recall", "expression", "path", "echo", "facts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OPERATORS = ("+", "-", "*", "//", "%")


def drill(rng: random.Random, pieces: Pieces, length: int = 256, kind: Kind | None = None) -> Tokens:
    """One drill of exactly `length` tokens; when no kind is asked for, recall and facts are the most frequent."""
    kind = kind or rng.choices(KINDS, weights=(3, 1, 1, 1, 3))[0]
    draft = Draft(pieces)
    if kind == "recall":
        _recall(rng, pieces, draft, length)
    elif kind == "expression":
        _expression(rng, pieces, draft, length)
    elif kind == "path":
        _path(rng, pieces, draft, length)
    elif kind == "echo":
        _echo(rng, pieces, draft, length)
    else:
        _facts(rng, pieces, draft, length)
    return draft.tokens(length)


def _recall(rng: random.Random, pieces: Pieces, draft: Draft, length: int) -> None:
    count = rng.randint(3, 16)
    values = dict(zip(rng.sample(pieces.names, count), rng.choices(pieces.names, k=count)))
    seen: set[str] = set()
    while len(draft) < length:
        key = rng.choice(list(values))
        draft.write(key, "=")
        draft.write(values[key], trained=key in seen)
        draft.write("\n")
        seen.add(key)


def _expression(rng: random.Random, pieces: Pieces, draft: Draft, length: int) -> None:
    files = {name: expression(rng, pieces) for name in rng.sample(pieces.names, rng.randint(2, 6))}
    seen: set[str] = set()
    while len(draft) < length:
        name = rng.choice(list(files))
        draft.write(name, ".", "py", ":", " ")
        draft.write(*files[name], "\n", trained=name in seen)
        seen.add(name)


def expression(rng: random.Random, pieces: Pieces) -> list[str]:
    """The pieces of a short random expression: `lake(a, 3)`, `a + fox`, `fox = b % 2`."""
    name, other = rng.sample(pieces.names, 2)
    argument, number, operator = rng.choice("ab"), str(rng.randint(0, 9)), rng.choice(OPERATORS)
    return rng.choice(
        [
            [name, "(", argument, ",", " ", rng.choice([number, other]), ")"],
            [argument, " ", operator, " ", rng.choice([number, name])],
            [name, " ", "=", " ", argument, " ", operator, " ", number],
            [name, " ", operator, " ", other],
        ]
    )


def _path(rng: random.Random, pieces: Pieces, draft: Draft, length: int) -> None:
    size, count = rng.randint(2, 4), rng.randint(3, 8)
    names = rng.sample(pieces.names, size * count)  # no name is in two paths: its first name tells a path
    paths = [names[i : i + size] for i in range(0, len(names), size)]
    joint = rng.choice(("/", ".", "-"))
    seen: set[str] = set()
    while len(draft) < length:
        first, *rest = rng.choice(paths)
        draft.write(first)
        for name in rest:
            draft.write(joint)
            draft.write(name, trained=first in seen)
        draft.write("\n")
        seen.add(first)


def _echo(rng: random.Random, pieces: Pieces, draft: Draft, length: int) -> None:
    while len(draft) < length:
        name = rng.choice(pieces.names)
        draft.write("open", " ", name, ".", "py", "\n")
        for _ in range(rng.randint(0, 4)):
            draft.write(rng.choice(pieces.names), " ", *expression(rng, pieces), "\n")
        draft.write("read", " ")
        draft.write(name, trained=True)
        draft.write(".", "py", "\n")


def _facts(rng: random.Random, pieces: Pieces, draft: Draft, length: int) -> None:
    while len(draft) < length:
        question, answer = _fact(rng)
        draft.write(*question)
        draft.write(*answer, trained=True)
        draft.write(rng.choice((";", "\n")))


def _fact(rng: random.Random) -> tuple[list[str], list[str]]:
    """A question and its answer in pieces, of digits or truth values."""
    if rng.random() < 0.2:
        a, b = rng.random() < 0.5, rng.random() < 0.5
        word = rng.choice(("and", "or"))
        value = (a and b) if word == "and" else (a or b)
        return [str(a).lower(), " ", word, " ", str(b).lower(), "="], [str(value).lower()]
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    if rng.random() < 0.2:
        return [str(a), ">", str(b), " "], ["yes" if a > b else "no"]
    operator = rng.choice(("+", "-", "+", "-", "*", "//", "%"))
    if operator == "-" and b > a:
        a, b = b, a
    b = max(b, 1) if operator in ("//", "%") else b
    value = {"+": a + b, "-": a - b, "*": a * b, "//": a // max(b, 1), "%": a % max(b, 1)}[operator]
    return [str(a), operator, str(b), "="], list(str(value))
