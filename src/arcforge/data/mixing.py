"""Mixtures: rows of several sources in fixed proportions, repeatable, and resumable from a few counters.

A source answers for any row number, so a position is a number: no stream is replayed when a run resumes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from arcforge.core.errors import UserError
from arcforge.data.packing import PackedRows, Tokens, pack
from arcforge.data.pieces import seeded


class RowSource(Protocol):
    """Rows without end, all of `length` tokens; `row(i)` is one row [1, T], the same at every call."""

    @property
    def length(self) -> int: ...

    def row(self, index: int) -> PackedRows: ...


class StoredRows:
    """Packed rows again and again, in another order each epoch."""

    def __init__(self, rows: PackedRows, seed: int) -> None:
        if not len(rows):
            raise ValueError("a source needs at least one row")
        self._rows, self._seed = rows, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    @property
    def length(self) -> int:
        return self._rows.length

    def row(self, index: int) -> PackedRows:
        epoch, place = divmod(index, len(self._rows))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
        return self._rows[[self._order[place]]]


class GeneratedRows:
    """A new row at every index: `make` gets a generator seeded by (purpose, seed, index); at most `length` tokens."""

    def __init__(
        self, make: Callable[[random.Random], Tokens], length: int, purpose: str, seed: int, pad_id: int = 0
    ) -> None:
        self._make, self._length, self._purpose, self._seed, self._pad_id = make, length, purpose, seed, pad_id

    @property
    def length(self) -> int:
        return self._length

    def row(self, index: int) -> PackedRows:
        tokens = self._make(seeded(self._purpose, self._seed, index))
        if len(tokens) > self._length:
            raise ValueError(f"{self._purpose}: row {index} has {len(tokens)} tokens, more than {self._length}")
        return pack([tokens], self._length, "truncate", self._pad_id)


class Mixture:
    """Rows of the sources in proportion to their weights.

    Each row is taken from the source that is furthest behind its share, so after n rows every source has given its
    share of n to within a few rows, whatever the batch size. Weights of 0 leave a source out.
    """

    def __init__(self, sources: Mapping[str, RowSource], weights: Mapping[str, float]) -> None:
        unknown = set(weights) - set(sources)
        if unknown:
            raise UserError(f"mixture: no source named {min(unknown)!r}; there are {', '.join(sorted(sources))}")
        used = {name: weight for name, weight in weights.items() if weight > 0}
        if not used or min(weights.values()) < 0:
            raise UserError("mixture: weights must not be negative, and one of them must be positive")
        if len({sources[name].length for name in used}) != 1:
            raise ValueError("sources of one mixture must have rows of one length")
        total = sum(used.values())
        self._shares = {name: weight / total for name, weight in sorted(used.items())}
        self._sources = {name: sources[name] for name in self._shares}
        self._taken = dict.fromkeys(self._shares, 0)

    def batch(self, size: int) -> PackedRows:
        """The next `size` rows."""
        return PackedRows.concatenate([self._next() for _ in range(size)])

    def state(self) -> dict[str, int]:
        """How many rows each source has given; all that a checkpoint needs."""
        return dict(self._taken)

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue after `state`. ValueError when it belongs to a mixture of other sources."""
        if set(state) != set(self._taken):
            raise ValueError(f"state of sources {sorted(state)}, but the mixture has {sorted(self._taken)}")
        self._taken = {name: state[name] for name in self._taken}

    def _next(self) -> PackedRows:
        following = sum(self._taken.values()) + 1
        name = max(self._shares, key=lambda name: self._shares[name] * following - self._taken[name])
        index = self._taken[name]
        self._taken[name] += 1
        return self._sources[name].row(index)
