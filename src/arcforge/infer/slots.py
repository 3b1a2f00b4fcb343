"""Slots of the latent cache and what each still holds: a new request starts from the longest prefix any slot knows.

One conversation's next turn continues in its own slot; samples of one group copy the prompt that the first one computed.
Contents written by weights older than `stale` versions never start a new request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from arcforge.model.cache import LatentCache


@dataclass
class Slot:
    """tokens[:length] are cached; version is that of the oldest weights that computed some of them (-1: not reusable)."""

    index: int
    tokens: np.ndarray
    length: int = 0
    version: int = -1
    busy: bool = False
    used: int = field(default=0)

    def extend(self, ids: list[int]) -> None:
        self.tokens[self.length : self.length + len(ids)] = ids
        self.length += len(ids)


class SlotTable:
    """Chooses slots for prompts. Least recently used contents are given up first. stale: versions a content may lag."""

    def __init__(self, cache: LatentCache, stale: int = 0) -> None:
        self._cache, self._stale = cache, stale
        self._clock = 0
        self.slots = [Slot(i, np.zeros(cache.capacity + 1, dtype=np.int32)) for i in range(cache.slots)]

    @property
    def free(self) -> int:
        return sum(not slot.busy for slot in self.slots)

    def take(self, prompt: np.ndarray, version: int) -> Slot:
        """A free slot holding as long a prefix of the prompt as possible (at most all but its last token)."""
        self._clock += 1
        best, shared = self._longest_prefix(prompt, version - self._stale)
        oldest = version if best is None else best.version
        if best is None or best.busy:
            target = min(
                (s for s in self.slots if not s.busy), key=lambda s: (s.version >= version - self._stale, s.used)
            )
            if best is not None:
                self._cache.copy_slot(best.index, target.index, shared)
                target.tokens[:shared] = best.tokens[:shared]
        else:
            target = best
        target.length, target.version, target.busy, target.used = shared, oldest, True, self._clock
        return target

    def release(self, slot: Slot) -> None:
        self._clock += 1
        slot.busy, slot.used = False, self._clock

    def forget(self) -> None:
        """Nothing cached so far may start a new request; running ones go on (their slots turn -1)."""
        for slot in self.slots:
            slot.version = -1

    def _longest_prefix(self, prompt: np.ndarray, oldest: int) -> tuple[Slot | None, int]:
        best, shared = None, 0
        for slot in self.slots:
            if slot.version < max(oldest, 0):
                continue
            limit = min(slot.length, len(prompt) - 1)
            if limit <= shared or slot.tokens[shared] != prompt[shared]:
                continue
            differs = slot.tokens[:limit] != prompt[:limit]
            common = int(differs.argmax()) if differs.any() else limit
            if common > shared or (common == shared and best is not None and best.busy):
                best, shared = slot, common
        return best, shared
