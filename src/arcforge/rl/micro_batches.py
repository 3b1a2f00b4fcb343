"""Packed rows in portions that a forward pass can hold, chosen by their tokens, padding included.

Legend: N rows, T tokens per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arcforge.core.documents import PADDING, SHARED
from arcforge.data.packing import PackedRows, Tokens, blank, put


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """rows: cut after the last token of the longest. places: int64 [n], the places of their trained tokens among the
    trained tokens of all rows, row by row; n > 0."""

    rows: PackedRows
    places: np.ndarray


def micro_batches(rows: PackedRows, budget: int) -> Iterator[MicroBatch]:
    """Rows of similar length together, at most `budget` tokens (rows times the longest) at once; a longer row goes alone.

    Longest first, so that what does not fit into memory fails at once. Rows without a trained token are left out.
    """
    trained_N = rows.loss_mask.sum(1)
    ends_N = np.cumsum(trained_N)
    lengths_N = _lengths(rows)
    chosen: list[int] = []
    for n in np.argsort(-lengths_N, kind="stable").tolist():
        if not trained_N[n]:
            continue
        if chosen and (len(chosen) + 1) * lengths_N[chosen[0]] > budget:
            yield _micro_batch(rows, chosen, lengths_N, trained_N, ends_N)
            chosen = []
        chosen.append(n)
    if chosen:
        yield _micro_batch(rows, chosen, lengths_N, trained_N, ends_N)


def separate(rows: PackedRows) -> PackedRows:
    """One document a row, behind its own copy of the prefix. Documents keep their order, and so do all trained tokens."""
    documents: list[tuple[int, Tokens]] = []
    for ids, owners, mask in zip(rows.ids, rows.document_ids, rows.loss_mask):
        for document in dict.fromkeys(owners[owners >= 0].tolist()):
            own = (owners == SHARED) | (owners == document)
            documents.append((document, Tokens(ids[own], mask[own])))
    separated = blank(len(documents), max((len(tokens) for _, tokens in documents), default=0), 0)
    for n, (document, tokens) in enumerate(documents):
        put(separated, n, 0, document, tokens, 0)
    return separated


def _lengths(rows: PackedRows) -> np.ndarray:
    """Tokens of each row up to its last that is not padding, int64 [N]."""
    used_NT = rows.document_ids != PADDING
    return np.where(used_NT.any(1), rows.length - used_NT[:, ::-1].argmax(1), 0)


def _micro_batch(
    rows: PackedRows, chosen: list[int], lengths_N: np.ndarray, trained_N: np.ndarray, ends_N: np.ndarray
) -> MicroBatch:
    part, longest = rows[chosen], int(lengths_N[chosen[0]])
    trimmed = PackedRows(
        *(array[:, :longest] for array in (part.ids, part.document_ids, part.loss_mask, part.positions))
    )
    return MicroBatch(trimmed, np.concatenate([np.arange(ends_N[n] - trained_N[n], ends_N[n]) for n in chosen]))
