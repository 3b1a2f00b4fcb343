"""Packing: token sequences into rows of one length, with document ids so that attention stays inside documents.

Two strategies (GLM-4.5 cuts anywhere in pre-training and packs by best fit from mid-training on; the GLM-5 report,
sections 2.2 and 2.3, names no other):

    truncate   one stream cut every `length` tokens; no padding but in the last row; documents may be cut.
    best_fit   best-fit decreasing; a document is cut only when it is longer than a row; rows end in padding.

Legend: N rows, T tokens per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from arcforge.core.documents import PADDING

Strategy = Literal["truncate", "best_fit"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """One document. ids: int32 [n]. mask: bool [n], whether the token may be a target of the loss."""

    ids: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[int] | np.ndarray, mask: Sequence[bool] | np.ndarray | None = None) -> Tokens:
        """From lists; without a mask every token may be a target."""
        array = np.asarray(ids, dtype=np.int32)
        flags = np.ones(len(array), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if array.shape != flags.shape:
            raise ValueError(f"{len(array)} ids and {len(flags)} mask values")
        return cls(array, flags)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(self.ids[part], self.mask[part])


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows of one length.

    ids: int32 [N, T]. document_ids: int32 [N, T], the number of the document in the packed sequence, -1 for padding, -2
    for a prefix that all documents of the row share. loss_mask: bool [N, T]; loss_mask[n, t] says whether token t may be
    a target. The first token of a document in a row never is: nothing before it in the row belongs to its document alone.
    positions: int32 [N, T], the token's place in its own document, the shared prefix counted.
    """

    ids: np.ndarray
    document_ids: np.ndarray
    loss_mask: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> PackedRows:
        return PackedRows(self.ids[rows], self.document_ids[rows], self.loss_mask[rows], self.positions[rows])

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    @property
    def padding_share(self) -> float:
        return float((self.document_ids == PADDING).mean()) if len(self) else 0.0

    @classmethod
    def concatenate(cls, parts: Sequence[PackedRows]) -> PackedRows:
        """Rows of all parts, in order; document ids stay as they are (they only mean anything inside a row)."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.document_ids for part in parts]),
            np.concatenate([part.loss_mask for part in parts]),
            np.concatenate([part.positions for part in parts]),
        )


@dataclass(frozen=True)
class _Piece:
    document: int
    tokens: Tokens


def pack(documents: Iterable[Tokens], length: int, strategy: Strategy, pad_id: int = 0) -> PackedRows:
    """Rows of `length` tokens that hold every token of the documents exactly once; empty documents leave no trace."""
    if length < 2:
        raise ValueError(f"rows of {length} tokens predict nothing")
    pieces = [_Piece(i, tokens) for i, tokens in enumerate(documents) if len(tokens)]
    if strategy == "truncate":
        return _fill(_cut(pieces, length), length, pad_id)
    if strategy == "best_fit":
        return _fill(_best_fit(_split_long(pieces, length), length), length, pad_id)
    raise ValueError(f"unknown packing strategy {strategy!r}")


def _cut(pieces: Iterable[_Piece], length: int) -> list[list[_Piece]]:
    rows: list[list[_Piece]] = []
    room = 0
    for piece in pieces:
        start = 0
        while start < len(piece.tokens):
            if not room:
                rows.append([])
                room = length
            part = piece.tokens[start : start + room]
            rows[-1].append(_Piece(piece.document, part))
            start += len(part)
            room -= len(part)
    return rows


def _split_long(pieces: Iterable[_Piece], length: int) -> list[_Piece]:
    return [
        _Piece(piece.document, piece.tokens[start : start + length])
        for piece in pieces
        for start in range(0, len(piece.tokens), length)
    ]


def _best_fit(pieces: Sequence[_Piece], length: int) -> list[list[_Piece]]:
    """Longest first, each into the fullest row that still has room.

    `rows_with[r]` are rows with r free places; the bits of `rooms` say which r occur, so the smallest sufficient r is
    one shift and one lowest bit away.
    """
    rows: list[list[_Piece]] = []
    rows_with: dict[int, list[int]] = {}
    rooms = 0
    for piece in sorted(pieces, key=lambda piece: -len(piece.tokens)):
        size = len(piece.tokens)
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms ^= 1 << room
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(piece)
        left = room - size
        rows_with.setdefault(left, []).append(row)
        rooms |= 1 << left
    return rows


def _fill(rows: Sequence[Sequence[_Piece]], length: int, pad_id: int) -> PackedRows:
    filled = blank(len(rows), length, pad_id)
    for n, row in enumerate(rows):
        start = 0
        for piece in row:
            start = put(filled, n, start, piece.document, piece.tokens, 0)
    return filled


def blank(rows: int, length: int, pad_id: int) -> PackedRows:
    """Rows of padding alone."""
    shape = (rows, length)
    return PackedRows(
        np.full(shape, pad_id, dtype=np.int32),
        np.full(shape, PADDING, dtype=np.int32),
        np.zeros(shape, dtype=bool),
        np.zeros(shape, dtype=np.int32),
    )


def put(rows: PackedRows, n: int, start: int, document: int, tokens: Tokens, place: int) -> int:
    """Write tokens into row n at `start`, as those of a document from its `place` on; returns the end."""
    end = start + len(tokens)
    rows.ids[n, start:end] = tokens.ids
    rows.document_ids[n, start:end] = document
    rows.loss_mask[n, start:end] = tokens.mask
    rows.loss_mask[n, start] = False
    rows.positions[n, start:end] = np.arange(place, place + len(tokens))
    return end
