"""Which blocks of the cache are free, who reads them, and what the full ones hold: prefixes are shared block by block.

A full block is known by the chain of all tokens up to its end, so equal keys mean equal contents. It stays readable after
its last reader has left, until its room is needed; the least recently left goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from arcforge.model.cache import BLOCK


def extend_keys(keys: list[bytes], tokens: Sequence[int], salt: bytes = b"") -> None:
    """Add the keys of the full blocks of `tokens` that `keys` lacks. Other salts never share."""
    for number in range(len(keys), len(tokens) // BLOCK):
        before = keys[-1] if keys else b"root" + salt
        block = np.asarray(tokens[number * BLOCK : (number + 1) * BLOCK], dtype=np.int64)
        keys.append(blake2b(before + block.tobytes(), digest_size=16).digest())


class BlockPool:
    """Blocks 0..count-1. stale: how many weight versions the contents of a block may lag behind when they are read anew."""

    def __init__(self, count: int, stale: int = 0) -> None:
        self.count, self._stale = count, stale
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._readers = [0] * count
        self._key: list[bytes | None] = [None] * count
        self._version = [-1] * count
        self._by_key: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody reads now."""
        return len(self._free)

    def known(self, keys: Sequence[bytes], version: int) -> list[int]:
        """The blocks that hold the longest prefix of the chain; nothing changes."""
        found: list[int] = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None or self._version[block] < max(version - self._stale, 0):
                break
            found.append(block)
        return found

    def free_besides(self, blocks: Sequence[int]) -> int:
        """Free blocks when these are in use."""
        return len(self._free) - sum(block in self._free for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """One more reader of each."""
        for block in blocks:
            self._readers[block] += 1
            self._free.pop(block, None)

    def take(self) -> int | None:
        """A block for new contents; None when all have readers."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._readers[block] = 1
        return block

    def publish(self, block: int, key: bytes, version: int) -> None:
        """The block is full; version: of the oldest weights that its contents depend on. The newest copy of equal contents
        is the one that is found."""
        other = self._by_key.get(key)
        if other is not None and other != block:
            if self._version[other] >= version:
                return
            self._forget(other)
        self._by_key[key], self._key[block], self._version[block] = block, key, version

    def release(self, blocks: Sequence[int]) -> None:
        """One reader less of each. The end of a chain is given up before its beginning."""
        for block in reversed(blocks):
            self._readers[block] -= 1
            if not self._readers[block]:
                self._free[block] = None
                if self._key[block] is None:
                    self._free.move_to_end(block, last=False)

    def forget(self) -> None:
        """Nothing written so far is found again; running requests go on."""
        for block in list(self._by_key.values()):
            self._forget(block)

    def version(self, blocks: Sequence[int]) -> int:
        """Of the oldest weights that the contents of these depend on."""
        return min(self._version[block] for block in blocks)

    def _forget(self, block: int) -> None:
        key = self._key[block]
        if key is not None:
            del self._by_key[key]
            self._key[block], self._version[block] = None, -1
