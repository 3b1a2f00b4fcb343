"""Pages that say what an earlier one says: the manual page and the HTML page of one command, a page of two versions."""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict

SHINGLE, EVERY = 6, 16
"""Runs of so many words are hashed, one in EVERY hashes is kept: the same ones of the same text, wherever it stands."""
SHARED = 0.6
"""Of the kept hashes of the shorter page: above it, the later page is left out."""
_WORD = re.compile(r"\w+")


class Alike:
    """Takes pages one by one."""

    def __init__(self) -> None:
        self._pages: dict[int, list[int]] = defaultdict(list)
        self._sizes: list[int] = []

    def seen(self, text: str) -> bool:
        """Whether an earlier page says the same; one that is new is remembered."""
        words = _WORD.findall(text.casefold())
        runs = (" ".join(words[at : at + SHINGLE]).encode() for at in range(len(words) - SHINGLE + 1))
        kept = {value for value in map(zlib.crc32, runs) if value % EVERY == 0}
        shared = Counter(page for value in kept for page in self._pages.get(value, ()))
        if any(count > SHARED * min(len(kept), self._sizes[page]) for page, count in shared.items()):
            return True
        for value in kept:
            self._pages[value].append(len(self._sizes))
        self._sizes.append(len(kept))
        return False
