"""Which documents are worth reading: length, line length, share of letters and digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from arcforge.data.sources import Document


@dataclass(frozen=True)
class Limits:
    """Bounds in characters. `alphanumeric` counts letters and digits among the characters that are not white space."""

    shortest: int = 200
    longest: int = 400_000
    longest_line: int = 400
    mean_line: float = 100.0
    alphanumeric: float = 0.5


def reason_to_drop(text: str, limits: Limits) -> str:
    """Why the text is left out, or "" when it stays."""
    if len(text) < limits.shortest:
        return "short"
    if len(text) > limits.longest:
        return "long"
    lengths = [len(line) for line in text.splitlines()]
    if max(lengths) > limits.longest_line:
        return "long line"
    if sum(lengths) / len(lengths) > limits.mean_line:
        return "long lines"
    dense = "".join(text.split())
    if sum(map(str.isalnum, dense)) < limits.alphanumeric * len(dense):
        return "symbols"
    return ""


def filtered(documents: Iterable[Document], limits: Limits | None = None) -> tuple[list[Document], dict[str, int]]:
    """(documents that stay, in order; how many were dropped, by reason)."""
    limits = limits or Limits()
    kept: list[Document] = []
    dropped: Counter[str] = Counter()
    for document in documents:
        reason = reason_to_drop(document.text, limits)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(document)
    return kept, dict(dropped)
