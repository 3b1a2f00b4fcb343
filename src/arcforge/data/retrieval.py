"""Long documents in which answers must be found: needles (RULER) and ordinals (MRCR), at an exact length in tokens.

    needle    river=fox            ... query `river=`    -> fox
    ordinal   river=fox river=oak  ... query `river 2=`  -> oak, the second value river was given

GLM-5 report, section 2.3, trains MRCR-like variants in its longest stage; sections 2.1.1 and 2.1.2 measure dense,
sparse and windowed attention by retrieval. Needles stand anywhere with equal probability, queries at the end.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.words import FILLERS
from arcforge.data.packing import PackedRows, Tokens, pack
from arcforge.data.pieces import Draft, Pieces, seeded

Kind = Literal["needle", "ordinal"]
Line = Sequence[int]
LOOKS_LIKE_A_NEEDLE = re.compile(r"\w+( \w+)?=\w+$")
LONGEST_FILLER = 40
QUERIES = 8


@dataclass(frozen=True, eq=False)
class RetrievalRow:
    """One document. ids: int32 [length]; mask: bool [length], the targets; answer_positions: places t of the answers
    (predicted from t - 1). chance: expected share of answers right for a reader that knows the format but does not look
    (needle: picks among the document's values; ordinal: finds the key but does not count)."""

    ids: np.ndarray
    mask: np.ndarray
    answer_positions: tuple[int, ...]
    query_count: int
    chance: float

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.ids, self.mask)


@dataclass(frozen=True)
class _Plan:
    """needles: (key, value) in document order. queries: (text of the query's key, value)."""

    needles: list[tuple[str, str]]
    queries: list[tuple[str, str]]
    chance: float


def retrieval_row(
    rng: random.Random,
    pieces: Pieces,
    length: int,
    pairs: int,
    filler: Sequence[Line] = (),
    kind: Kind = "needle",
    queries: int = QUERIES,
    train_everything: bool = False,
) -> RetrievalRow:
    """A document of exactly `length` tokens with `pairs` needles, `filler` between them and queries at the end.

    filler: lines as token ids (`filler_lines`); without any, sentences of common words. Only answers are targets,
    unless `train_everything`. Raises ValueError when needles and queries alone are longer than `length`.
    """
    plan = (
        _plan_needles(rng, pieces, pairs, queries) if kind == "needle" else _plan_ordinals(rng, pieces, pairs, queries)
    )
    needles = [_line(pieces, key, value) for key, value in plan.needles]
    asked = [_line(pieces, key, value) for key, value in plan.queries]
    draft = Draft(pieces)
    room = length - len(draft) - sum(map(len, needles)) - sum(map(len, asked))
    if room < 0:
        raise ValueError(f"{pairs} pairs and {len(asked)} queries are {-room} tokens more than a row of {length}")
    for line in _interleaved(rng, needles, _fill(rng, pieces, filler, room)):
        draft.extend(line, trained=train_everything)
    answers = []
    for line in asked:
        draft.extend(line[:-2], trained=train_everything)
        answers.append(len(draft))
        draft.extend(line[-2:-1], trained=True)
        draft.extend(line[-1:], trained=train_everything)
    tokens = draft.tokens(length)
    return RetrievalRow(tokens.ids, tokens.mask, tuple(answers), len(asked), plan.chance)


def training_row(rng: random.Random, pieces: Pieces, length: int, filler: Sequence[Line] = ()) -> Tokens:
    """A row for training: 2 to 32 pairs as far as they fit, one in four ordinal, up to 16 queries."""
    most = max(2, min(32, length // 12))
    kind: Kind = "ordinal" if rng.random() < 0.25 else "needle"
    pairs = rng.randint(2, most)
    return retrieval_row(rng, pieces, length, pairs, filler, kind, queries=min(16, pairs)).tokens


def evaluation_rows(
    pieces: Pieces,
    length: int,
    pairs: int,
    count: int,
    filler: Sequence[Line] = (),
    kind: Kind = "needle",
    seed: int = 0,
) -> list[RetrievalRow]:
    """`count` fixed rows; their random streams belong to evaluation alone, so none of them is a training row."""
    return [
        retrieval_row(seeded("retrieval-evaluation", seed, kind, length, pairs, i), pieces, length, pairs, filler, kind)
        for i in range(count)
    ]


def packed(rows: Sequence[RetrievalRow]) -> PackedRows:
    """Rows of one length as a batch, one document per row, in order."""
    return pack([row.tokens for row in rows], len(rows[0].ids), "truncate")


def filler_lines(texts: Iterable[str], tokenizer: Tokenizer) -> list[Line]:
    """Lines of real text as token ids, stripped, each with its newline; lines that look like needles are left out."""
    lines = [line.strip() for text in texts for line in text.splitlines()]
    kept = [f"{line}\n" for line in lines if line and not LOOKS_LIKE_A_NEEDLE.search(line)]
    return [ids for ids in tokenizer.encode_batch(kept) if len(ids) <= LONGEST_FILLER]


def _line(pieces: Pieces, key: str, value: str) -> list[int]:
    words = [part for word in key.split() for part in (" ", word)][1:]
    return [i for piece in (*words, "=", value, "\n") for i in pieces.ids(piece)]


def _keys(rng: random.Random, pieces: Pieces, count: int) -> list[str]:
    """Different keys: one word each while the words last, else two words each."""
    if count <= len(pieces.names):
        return rng.sample(pieces.names, count)
    two = [" ".join(words) for words in permutations(pieces.names, 2)]
    if count > len(two):
        raise ValueError(f"{count} different keys cannot be made of {len(pieces.names)} words")
    return rng.sample(two, count)


def _values(rng: random.Random, pieces: Pieces, count: int) -> list[str]:
    """Different values while the words last, so that chance is as low as it can be."""
    rounds = [rng.sample(pieces.names, len(pieces.names)) for _ in range(-(-count // len(pieces.names)))]
    return [value for values in rounds for value in values][:count]


def _plan_needles(rng: random.Random, pieces: Pieces, pairs: int, queries: int) -> _Plan:
    needles = list(zip(_keys(rng, pieces, pairs), _values(rng, pieces, pairs)))
    asked = rng.sample(needles, min(queries, pairs))
    return _Plan(needles, asked, 1 / len({value for _, value in needles}))


def _plan_ordinals(rng: random.Random, pieces: Pieces, pairs: int, queries: int) -> _Plan:
    """Each key stands two to four times, its values shuffled among those of the others."""
    if pairs < 2:
        raise ValueError("an ordinal needs a key that stands at least twice")
    sizes: list[int] = []
    while (left := pairs - sum(sizes)) > 0:
        # One occurrence must not be left over for a key of its own.
        sizes.append(rng.choice([n for n in (2, 3, 4) if n <= left and left - n != 1]))
    keys = [key for key, size in zip(_keys(rng, pieces, len(sizes)), sizes) for _ in range(size)]
    rng.shuffle(keys)
    needles = list(zip(keys, _values(rng, pieces, pairs)))
    seen: dict[str, int] = {}
    numbered = []
    for key, value in needles:
        seen[key] = seen.get(key, 0) + 1
        numbered.append((key, seen[key], value))
    asked = rng.sample(numbered, min(queries, pairs))
    chance = sum(1 / seen[key] for key, _, _ in asked) / len(asked)
    return _Plan(needles, [(f"{key} {number}", value) for key, number, value in asked], chance)


def _fill(rng: random.Random, pieces: Pieces, filler: Sequence[Line], room: int) -> list[Line]:
    """Lines of `room` tokens in all: a passage of the filler from a random place; the last line loses its front."""
    lines: list[Line] = []
    place = rng.randrange(len(filler)) if filler else 0
    while room > 0:
        line = filler[(place + len(lines)) % len(filler)] if filler else _sentence(rng, pieces)
        lines.append(line[-room:])
        room -= len(lines[-1])
    return lines


def _sentence(rng: random.Random, pieces: Pieces) -> list[int]:
    words = [part for word in rng.choices(FILLERS, k=rng.randint(3, 9)) for part in (" ", word)][1:]
    return [i for piece in (*words, ".", "\n") for i in pieces.ids(piece)]


def _interleaved(rng: random.Random, needles: Sequence[Line], filler: Sequence[Line]) -> list[Line]:
    """Needles, in order, at uniformly random places between filler lines (uniform in tokens, not in lines)."""
    ends = np.cumsum([0, *map(len, filler)]).tolist()
    gaps = sorted(bisect_left(ends, rng.uniform(0, ends[-1])) for _ in needles)
    result: list[Line] = []
    before = 0
    for needle, gap in zip(needles, gaps):
        result += [*filler[before:gap], needle]
        before = gap
    return result + list(filler[before:])
