"""Document ids of packed rows that are not a document's number (0, 1, ...)."""

from __future__ import annotations

PADDING = -1
"""The token belongs to nothing."""
SHARED = -2
"""The token belongs to the prefix that all documents of its row begin with."""
