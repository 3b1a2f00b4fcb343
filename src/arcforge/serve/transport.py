"""Bytes from one process to another by ticket: the sender puts them somewhere, a small ticket travels over HTTP, the receiver
gets the bytes with it and releases them.

    ticket = sender.put(parts); receiver = transport("shared_memory"); view = receiver.get(ticket, 5.0); receiver.release(ticket)

What nobody releases is freed after `ttl` seconds, or when the sender ends. Of contents a transport knows nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from arcforge.core import segments
from arcforge.core.errors import EngineError, UserError

Ticket = dict[str, str | int]
"""JSON: the transport's name under "transport", the bytes' number under "size", and what the transport needs to find them."""
Part = bytes | bytearray | memoryview
TTL = 60.0


log = logging.getLogger(__name__)


class Transport(Protocol):
    """May be used from several threads. UserError for what is no ticket of this transport, EngineError for everything else."""

    def put(self, parts: Iterable[Part]) -> Ticket:
        """Keep the parts, one after the other, for whoever comes with the ticket."""
        ...

    def get(self, ticket: Mapping[str, Any], timeout: float) -> memoryview:
        """The bytes; they stay valid after `release`. EngineTimeout: none within `timeout` seconds."""
        ...

    def release(self, ticket: Mapping[str, Any]) -> None:
        """Nobody will get them any more, says the sender or the receiver. Once more, or too late, does no harm."""
        ...

    def close(self) -> None:
        """Free what was put here and is still kept."""
        ...


def transport(name: str, ttl: float = TTL) -> Transport:
    """A transport by name: "shared_memory" within one machine, "nixl" between machines too. UserError for another name and
    where nixl is not installed."""
    if name == SharedMemoryTransport.name:
        return SharedMemoryTransport(ttl)
    if name == "nixl":
        from arcforge.serve.nixl_transport import NixlTransport

        return NixlTransport(ttl)
    raise UserError(f"transport: {name[:40]!r} is none of shared_memory, nixl")


class Janitor:
    """From the first `start` on calls `tidy` every `seconds`, and `empty` at `close` or when this process ends."""

    def __init__(self, seconds: float, tidy: Callable[[], None], empty: Callable[[], None]) -> None:
        self._seconds, self._tidy, self._empty = seconds, tidy, empty
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._process = 0

    def start(self) -> None:
        with self._lock:
            if not self._process and not self._closed.is_set():
                self._process = os.getpid()
                atexit.register(self.close)
                threading.Thread(target=self._run, name="janitor", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        atexit.unregister(self.close)
        if self._process == os.getpid():  # a fork owns nothing
            self._empty()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds):
            try:
                self._tidy()
            except Exception:
                log.exception("a transport could not tidy up; it goes on")


class SharedMemoryTransport:
    """Segments of shared memory (`core.segments`), written whole before there is a ticket: nothing waits for the sender, which
    may even have been killed. A segment's name tells when anyone may remove it."""

    name = "shared_memory"
    _FORM = re.compile(r"arcforge-handoff-(\d{1,20})-[0-9a-f]{32}")

    def __init__(self, ttl: float = TTL) -> None:
        self._ttl, self._mine = ttl, set[str]()
        self._janitor = Janitor(min(ttl, 10.0) / 2, self._sweep, self._remove_all)

    def put(self, parts: Iterable[Part]) -> Ticket:
        """EngineError: there is no room."""
        self._janitor.start()
        name = f"arcforge-handoff-{int((time.time() + self._ttl) * 1000)}-{secrets.token_hex(16)}"
        self._mine.add(name)
        try:
            with segments.written(name) as path, open(path, "wb") as file:
                size = sum(file.write(part) for part in parts)
        except OSError as error:
            self._mine.discard(name)
            raise EngineError(f"shared memory cannot be written: {error.strerror}; free some of it") from None
        return {"transport": self.name, "name": name, "size": size}

    def get(self, ticket: Mapping[str, Any], timeout: float) -> memoryview:
        name, size = self._place(ticket)
        if self._expired(name):
            raise EngineError(f"{name} has expired")
        try:
            view = segments.mapped(name)
        except OSError as error:
            raise EngineError(f"{name} cannot be read: {error.strerror or error}; was it released?") from None
        if len(view) != size:
            raise EngineError(f"{name} holds {len(view)} bytes, not {size}")
        return view

    def release(self, ticket: Mapping[str, Any]) -> None:
        name, _ = self._place(ticket)
        self._mine.discard(name)
        segments.remove(name)

    def close(self) -> None:
        self._janitor.close()

    def _place(self, ticket: Mapping[str, Any]) -> tuple[str, int]:
        name, size = field(ticket, "name", str), field(ticket, "size", int)
        if ticket.get("transport") != self.name or not self._FORM.fullmatch(name):
            raise UserError(f"a ticket of {ticket.get('transport')!r:.40} for {name[:80]!r} is none of {self.name}")
        return name, size

    def _expired(self, name: str) -> bool:
        form = self._FORM.fullmatch(name.removesuffix(segments.PART))
        return form is not None and int(form[1]) < time.time() * 1000

    def _sweep(self) -> None:
        """Remove what has expired, also of senders that were killed."""
        for path in segments.folder().glob("arcforge-handoff-*"):
            if self._expired(path.name):
                with contextlib.suppress(OSError):  # another user's
                    path.unlink(missing_ok=True)
        self._mine.difference_update([name for name in list(self._mine) if self._expired(name)])

    def _remove_all(self) -> None:
        for name in list(self._mine):
            segments.remove(name)
        self._mine.clear()


def field(ticket: Mapping[str, Any], name: str, kind: type) -> Any:
    """UserError unless the ticket has such a value."""
    if not isinstance(ticket, Mapping) or type(ticket.get(name)) is not kind:
        raise UserError(f"a ticket needs {name} ({kind.__name__})")
    return ticket[name]
