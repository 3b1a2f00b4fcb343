"""Generated text as pieces with known token ids, so that a loss mask is exact and a row costs no tokeniser call.

A piece must begin and end where the pre-tokeniser splits (letters, digits, other marks and white space are separated),
so the ids of the pieces in a row are the ids of the joined text; a test holds this for every generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.words import NAMES
from arcforge.data.packing import Tokens
from arcforge.data.sources import Document

FEWEST_NAMES = 32


def seeded(purpose: str, *parts: int | str) -> random.Random:
    """An independent generator per purpose and place; different purposes never share a stream."""
    return random.Random(":".join([purpose, *map(str, parts)]))


class Pieces:
    """Token ids of short texts, remembered. `names` are the words of `core.words.NAMES` that are one token here.

    Raises UserError when the tokenizer knows so few of them as one token that nothing can be generated.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.prefix = (tokenizer.id("[gMASK]"), tokenizer.id("<sop>"))
        self._ids: dict[str, tuple[int, ...]] = {}
        self.names = tuple(name for name in NAMES if len(self.ids(name)) == 1)
        if len(self.names) < FEWEST_NAMES:
            raise UserError(
                f"tokenizer: only {len(self.names)} of the {len(NAMES)} words of the generated texts are one token; "
                "train it with a larger vocabulary, on text that holds them"
            )

    def ids(self, piece: str) -> tuple[int, ...]:
        known = self._ids.get(piece)
        if known is None:
            known = self._ids[piece] = tuple(self.tokenizer.encode(piece))
        return known


class Draft:
    """A row being written: ids and mask grow together; starts with [gMASK]<sop>, which are never targets."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.ids: list[int] = list(pieces.prefix)
        self.mask: list[bool] = [False] * len(self.ids)

    def write(self, *pieces: str, trained: bool = False) -> None:
        for piece in pieces:
            self.extend(self._pieces.ids(piece), trained)

    def extend(self, ids: Iterable[int], trained: bool = False) -> None:
        before = len(self.ids)
        self.ids.extend(ids)
        self.mask.extend([trained] * (len(self.ids) - before))

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self, length: int) -> Tokens:
        """The first `length` tokens."""
        return Tokens.of(self.ids[:length], self.mask[:length])


def tokenised(documents: Iterable[Document], tokenizer: Tokenizer) -> list[Tokens]:
    """Documents as [gMASK]<sop> text <|endoftext|>, the text and its end trained. Tokenises in parallel."""
    prefix, end = [tokenizer.id("[gMASK]"), tokenizer.id("<sop>")], [tokenizer.id("<|endoftext|>")]
    encoded = tokenizer.encode_batch([document.text for document in documents])
    return [Tokens.of(prefix + ids + end, [False, False] + [True] * (len(ids) + 1)) for ids in encoded]
