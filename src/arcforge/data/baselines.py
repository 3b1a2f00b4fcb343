"""An order-2 byte model: what a language model must beat before its bits per byte mean anything.

The next byte given the two before it, interpolated with order 1, order 0 and the uniform distribution by Witten-Bell:
p(b | c) = (n(c b) + t(c) p(b | shorter c)) / (n(c) + t(c)), where t(c) counts the distinct bytes seen after c.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OrderTwoBytes:
    """Probabilities of the next byte, float32 [65536 contexts, 256]; contexts are (byte before last) * 256 + last."""

    probabilities: np.ndarray

    @classmethod
    def fit(cls, texts: Iterable[str]) -> OrderTwoBytes:
        counts = np.zeros(1 << 24, dtype=np.float32)
        for contexts, following in _chunks(texts):
            codes, times = np.unique(contexts.astype(np.int64) * 256 + following, return_counts=True)
            counts[codes] += times
        counts = counts.reshape(256, 256, 256)
        probabilities = np.full(256, 1 / 256, dtype=np.float32)
        for level in (counts.sum(axis=(0, 1)), counts.sum(axis=0), counts):
            probabilities = _witten_bell(level, probabilities)
        return cls(probabilities.reshape(65536, 256))

    def bits_per_byte(self, texts: Iterable[str]) -> float:
        """Mean of -log2 p over every byte of the texts (UTF-8). Raises ValueError for no text at all."""
        bits, size = 0.0, 0
        for contexts, following in _chunks(texts):
            bits -= float(np.log2(self.probabilities[contexts, following]).sum(dtype=np.float64))
            size += len(following)
        if not size:
            raise ValueError("bits per byte of an empty text")
        return bits / size


def _witten_bell(counts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """counts [..., 256] of one order, shorter [..., 256] of the order below; a context never seen copies `shorter`."""
    total = counts.sum(axis=-1, keepdims=True)
    kinds = (counts > 0).sum(axis=-1, keepdims=True).astype(np.float32)
    weight = np.where(total > 0, kinds, 1.0).astype(np.float32)
    return (counts + weight * shorter) / (total + weight)


def _chunks(texts: Iterable[str]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """(contexts int32, following bytes uint8) of each text; a text starts after two zero bytes."""
    for text in texts:
        raw = np.frombuffer(b"\0\0" + text.encode(), dtype=np.uint8)
        if len(raw) > 2:
            yield raw[:-2].astype(np.int32) * 256 + raw[1:-1], raw[2:]
