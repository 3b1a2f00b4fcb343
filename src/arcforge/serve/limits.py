"""What one request may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """max_body_bytes of a request, request_timeout in seconds for one answer, max_batch sequences to score at once."""

    max_body_bytes: int = 32 << 20
    request_timeout: float = 600.0
    max_batch: int = 4096
