"""Ctrl-C that is not lost: code in C or Rust now and then turns KeyboardInterrupt into another error, or drops it."""

from __future__ import annotations

import _thread
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

AGAIN_SECONDS = 0.05


class InterruptWatch:
    """Inside the block, `check` raises a KeyboardInterrupt that got lost, and any error after Ctrl-C leaves the block as
    KeyboardInterrupt. One that is raised where nothing can catch it (a finalizer, a weak reference's callback) is raised
    again a moment later, without the interpreter's report of it. Main thread only. What handles the signal stays in place:
    asyncio goes on cancelling its tasks.
    """

    def __enter__(self) -> InterruptWatch:
        self._seen = False
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        # The interpreter writes the number of each signal here, before any handler runs.
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._report, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._again: threading.Timer | None = None
        return self

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed in the block, whatever became of its KeyboardInterrupt."""
        with suppress(BlockingIOError):
            self._seen |= signal.SIGINT in self._reader.recv(4096)
        return self._seen

    def check(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._again:
            self._again.cancel()
        sys.unraisablehook = self._report
        interrupted = self.interrupted
        signal.set_wakeup_fd(self._before)
        self._reader.close()
        self._writer.close()
        if interrupted and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _unraisable(self, error: Any) -> None:
        if not issubclass(error.exc_type, KeyboardInterrupt):
            self._report(error)
            return
        # Not at once: it would be raised in this very function.
        self._again = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main)
        self._again.daemon = True
        self._again.start()
