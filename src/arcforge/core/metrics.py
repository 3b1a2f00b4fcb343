"""Metrics and events as JSON lines, and progress for people: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm


class MetricSink(Protocol):
    """Where rows of metrics go: `JsonLines`, or that and more (`core.sinks`). A row names its `stage` and `step`."""

    def write(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """Append-only JSON lines; each row is one write call, so rows of several processes never mix."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        if self._file.tell() and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def write(self, row: dict[str, Any]) -> None:
        clean = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()}
        self._file.write(json.dumps({"time": round(time.time(), 3), **clean}, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


class Progress:
    """Progress of one stage over `total` units; `update` may carry values to show. Plain lines every `interval` s in a log."""

    def __init__(self, title: str, total: int, unit: str = "step", done: int = 0, interval: float = 10.0) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self._start, self._first, self._last, self._interval = time.monotonic(), done, 0.0, interval
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, dynamic_ncols=True, leave=True)

    def update(self, count: int = 1, **values: float | str) -> None:
        self.done += count
        text = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last >= self._interval or self.done >= self.total:
            self._last = now
            rate = (self.done - self._first) / max(now - self._start, 1e-9)
            eta = (self.total - self.done) / rate if rate else 0.0
            print(
                f"{self.title}: {self.done}/{self.total} {self.unit} {rate:.3g}/s eta {eta:.0f}s {text}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
