"""Where one rollout's record leaves one context and begins another."""

from __future__ import annotations

from collections.abc import Iterable

from arcforge.core.trajectory import TokenSpan

# Why the gateway began a fresh prompt; it stands as mask_reason of the first span of a fork.
FORK_REASONS = frozenset({"context", "drift", "inserted", "thinking", "tools"})


def contexts(spans: Iterable[TokenSpan]) -> list[list[TokenSpan]]:
    """Split a record into its contexts, each what the engine saw as one sequence; one list when nothing forked."""
    parts: list[list[TokenSpan]] = []
    for span in spans:
        if not parts or (span.source == "prompt" and span.mask_reason in FORK_REASONS):
            parts.append([])
        parts[-1].append(span)
    return parts
