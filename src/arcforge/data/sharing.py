"""Packing documents that begin alike: the common prefix stands once per row and every document of the row sees it.

Attempts at one task share their prompt, and all conversations of a family share system prompt and tools; at laptop sizes
that is most of their length. Row layout: [prefix | rest of document 1 | rest of document 2 | ...]; the rest of each
begins with the last common token, so that every trained token is predicted from inside its own document.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arcforge.core.documents import SHARED
from arcforge.data.packing import PackedRows, Tokens, blank, put


def pack_shared(
    documents: Sequence[Tokens], length: int, pad_id: int, order: Sequence[int] | None = None
) -> tuple[PackedRows, list[int]]:
    """Rows, and per document how many of its tokens stand in its row's shared prefix.

    order: in which order rows are filled; by default lexicographic, so that those with most in common come together.
    ValueError when a document is longer than a row.
    """
    if order is None:
        order = sorted(range(len(documents)), key=lambda i: documents[i].ids.tolist())
    rows: list[tuple[list[int], int]] = []
    members: list[int] = []
    prefix = total = 0
    for i in order:
        document = documents[i]
        if len(document) > length:
            raise ValueError(f"a document of {len(document)} tokens does not fit a row of {length}")
        if members:
            joint = min(prefix, _common(documents[members[-1]].ids, document.ids), _untrained(document))
            if total + len(document) - len(members) * joint <= length:
                members, prefix, total = [*members, i], joint, total + len(document)
                continue
            rows.append((members, prefix))
        members, prefix, total = [i], _untrained(document), len(document)
    rows += [(members, prefix)] if members else []
    return _write(documents, rows, length, pad_id)


def _write(
    documents: Sequence[Tokens], rows: Sequence[tuple[list[int], int]], length: int, pad_id: int
) -> tuple[PackedRows, list[int]]:
    filled, shared = blank(len(rows), length, pad_id), [0] * len(documents)
    for n, (members, prefix) in enumerate(rows):
        prefix = prefix if len(members) > 1 else 0
        start = put(filled, n, 0, SHARED, documents[members[0]][:prefix], 0) if prefix else 0
        for i in members:
            shared[i] = prefix
            start = put(filled, n, start, i, documents[i][prefix:], prefix)
    return filled, shared


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common prefix, less the last common token, which both keep for themselves."""
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    return max(0, (int(differs.argmax()) if differs.any() else size) - 1)


def _untrained(document: Tokens) -> int:
    """How many tokens at the start may be shared: up to the token before the first trained one."""
    first = int(document.mask.argmax()) if document.mask.any() else len(document)
    return max(0, first - 1)
