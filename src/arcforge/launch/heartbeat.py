"""Heartbeats: a component touches a file while its loop turns; anyone may look at the file's age."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Heartbeat:
    """The component's side: call `beat()` once per turn of the loop; it touches the file at most every `interval` s."""

    def __init__(self, path: Path, interval: float = 0.5) -> None:
        self.path, self.interval = path, interval
        self._last = -interval
        path.parent.mkdir(parents=True, exist_ok=True)

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._last >= self.interval:
            self._last = now
            self.path.touch()


def age(path: Path) -> float | None:
    """Seconds since the last beat, or None before the first."""
    try:
        return max(0.0, time.time() - os.stat(path).st_mtime)
    except FileNotFoundError:
        return None
