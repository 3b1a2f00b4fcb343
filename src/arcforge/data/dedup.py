"""Near-duplicate removal by MinHash and banding: documents that share most of their word shingles are kept once.

A signature is `bands * rows` minima of random hashes over the shingles of a text. Two texts with Jaccard similarity s
agree in each minimum with probability s, so they meet in some band with probability 1 - (1 - s^rows)^bands; a pair that
meets is confirmed by the share of equal minima, which estimates s.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from arcforge.data.sources import Document

WORDS = re.compile(r"\w+")
SHINGLE = 5
BANDS, ROWS = 32, 4


def signature(text: str, seed: int = 0) -> np.ndarray:
    """uint32 [BANDS * ROWS]: minima of that many hashes over the 5-word shingles of the text."""
    mixers = _mixers(seed)
    hashes = _shingles(text)
    minima = np.full(BANDS * ROWS, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, len(hashes), 1 << 13):
        block = hashes[start : start + (1 << 13), None]
        # Multiply-shift: the top half of an odd multiple modulo 2^64 is a universal hash.
        mixed = ((block * mixers[0] + mixers[1]) >> np.uint64(32)).astype(np.uint32)
        np.minimum(minima, mixed.min(axis=0), out=minima)
    return minima


def deduplicated(documents: Iterable[Document], threshold: float = 0.7, seed: int = 0) -> list[Document]:
    """The documents without those whose similarity to an earlier kept one is estimated above `threshold`."""
    documents = list(documents)
    kept = first_of_kind([signature(document.text, seed) for document in documents], threshold)
    return [documents[i] for i in kept]


def first_of_kind(signatures: Sequence[np.ndarray], threshold: float) -> list[int]:
    """Indices that stay: each signature that is like no earlier kept one."""
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    kept: list[int] = []
    for i, minima in enumerate(signatures):
        keys = [(band, row.tobytes()) for band, row in enumerate(minima.reshape(BANDS, ROWS))]
        candidates = {other for key in keys for other in buckets.get(key, ())}
        if any(float(np.mean(minima == signatures[other])) > threshold for other in candidates):
            continue
        kept.append(i)
        for key in keys:
            buckets[key].append(i)
    return kept


def _mixers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    odd = random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return odd, random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def _shingles(text: str) -> np.ndarray:
    """uint64 [number of shingles]: a hash of every run of SHINGLE words; a shorter text is one shingle."""
    words = WORDS.findall(text)
    hashes = {word: zlib.crc32(word.encode()) for word in set(words)}
    ids = np.array([hashes[word] for word in words] or [0], dtype=np.uint64)
    count = max(1, len(ids) - SHINGLE + 1)
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(min(SHINGLE, len(ids))):
        total = total * np.uint64(0x9E3779B97F4A7C15) + ids[offset : offset + count]
    return np.unique(total)
