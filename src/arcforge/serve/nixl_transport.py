"""NIXL as a transport: the receiver's agent reads the sender's memory, over whatever UCX finds between them (RDMA, TCP, shared
memory). The package is optional.

All that is put lies in one piece of memory that is registered once and stays: a receiver that comes too late reads bytes that
are not its own, never memory that is not there. So it looks for a stamp on either side of what it has read.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import importlib
import logging
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcforge.core.errors import EngineError, UserError
from arcforge.serve.engine import EngineTimeout
from arcforge.serve.transport import TTL, Janitor, Part, Ticket, field

ROOM = 1 << 28
POLL = 0.001  # seconds between two looks at a transfer, or for whoever wants to connect or has released something
STAMP, ALIGNED = 16, 64
HOW = "`pip install arcforge[nixl]`, or with a torch without CUDA `pip install --no-deps nixl nixl-cu12`"


@dataclass(frozen=True)
class Kept:
    """Where something that was put lies, stamps included, and until when."""

    begin: int
    end: int
    deadline: float


class NixlTransport:
    """One agent; room: bytes that it keeps at most. A process that has put something looks after it every millisecond, since an
    agent's own thread would take a whole core."""

    name = "nixl"

    def __init__(self, ttl: float = TTL, room: int = ROOM) -> None:
        """UserError where nixl is not installed."""
        try:
            api = importlib.import_module("nixl._api")
        except ImportError as error:
            raise UserError(f"transport nixl: {error}; {HOW}") from None
        logging.getLogger("nixl").setLevel(logging.WARNING)  # it would greet on the standard output
        strict = api.nixl_thread_sync_t.NIXL_THREAD_SYNC_STRICT  # the default is for one thread
        config = api.nixl_agent_config(enable_prog_thread=False, backends=["UCX"], sync_mode=strict)
        self._agent = api.nixl_agent(f"arcforge-{secrets.token_hex(8)}", config)
        self._ttl, self._room, self._lock = ttl, room, threading.Lock()
        self._memory: np.ndarray | None = None
        self._metadata = b""
        self._kept: dict[str, Kept] = {}
        self._senders: dict[bytes, str] = {}
        self._late: list[np.ndarray] = []
        self._janitor = Janitor(POLL, self._tidy, self._free_all)

    def put(self, parts: Iterable[Part]) -> Ticket:
        """EngineError: there is no room."""
        stamp = secrets.token_bytes(STAMP)
        stamped = b"".join((stamp, *parts, stamp))
        with self._told(), self._lock:
            memory = self._registered_room()
            begin = self._place_for(len(stamped))
            memory[begin : begin + len(stamped)] = np.frombuffer(stamped, dtype=np.uint8)
            self._kept[stamp.hex()] = Kept(begin, begin + len(stamped), time.monotonic() + self._ttl)
        self._janitor.start()
        address, agent = memory.ctypes.data + begin, base64.b64encode(self._metadata).decode()
        size = len(stamped) - 2 * STAMP
        return {"transport": self.name, "id": stamp.hex(), "size": size, "address": address, "agent": agent}

    def get(self, ticket: Mapping[str, Any], timeout: float) -> memoryview:
        stamp, size, address, metadata = self._understood(ticket)
        if metadata == self._metadata:
            return self._own(stamp)
        with self._told(), self._sender(metadata) as sender, self._lent(size + 2 * STAMP) as values:
            self._read(values, address, sender, timeout)
        if not values[:STAMP].tobytes() == values[-STAMP:].tobytes() == stamp:
            raise EngineError("nixl: what the ticket stands for is not there any more; it was released or has expired")
        return values.data[STAMP:-STAMP]

    def release(self, ticket: Mapping[str, Any]) -> None:
        stamp, _, _, metadata = self._understood(ticket)
        if metadata == self._metadata:
            self._free(stamp.hex())
        else:
            with contextlib.suppress(EngineError), self._told(), self._sender(metadata) as sender:
                self._agent.send_notif(sender, stamp.hex().encode())

    def close(self) -> None:
        self._janitor.close()

    def _understood(self, ticket: Mapping[str, Any]) -> tuple[bytes, int, int, bytes]:
        size, address = field(ticket, "size", int), field(ticket, "address", int)
        try:
            stamp = bytes.fromhex(field(ticket, "id", str))
            metadata = base64.b64decode(field(ticket, "agent", str), validate=True)
        except (binascii.Error, ValueError):
            stamp = metadata = b""
        if ticket.get("transport") != self.name or len(stamp) != STAMP or not metadata or min(size, address) < 0:
            raise UserError(f"a ticket of {ticket.get('transport')!r:.40} is none of {self.name}")
        return stamp, size, address, metadata

    def _own(self, stamp: bytes) -> memoryview:
        with self._lock:
            kept = self._kept.get(stamp.hex())
            if kept is None or self._memory is None:
                raise EngineError("nixl: what the ticket stands for was released or has expired")
            return self._memory[kept.begin + STAMP : kept.end - STAMP].copy().data

    def _registered_room(self) -> np.ndarray:
        if self._memory is None:
            memory = np.empty(self._room, dtype=np.uint8)
            self._agent.register_memory([(memory.ctypes.data, memory.size, 0, "")], "DRAM")
            self._memory, self._metadata = memory, self._agent.get_agent_metadata()
        return self._memory

    def _place_for(self, size: int) -> int:
        """The first gap of so many bytes. EngineError: there is none."""
        begin = 0
        for kept in sorted(self._kept.values(), key=lambda kept: kept.begin):
            if kept.begin - begin >= size:
                return begin
            begin = -(-kept.end // ALIGNED) * ALIGNED
        if self._room - begin < size:
            raise EngineError(f"nixl: no room for {size} bytes in {self._room}; {len(self._kept)} things are kept")
        return begin

    def _read(self, values: np.ndarray, address: int, sender: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        local, remote = (
            self._agent.get_xfer_descs([(a, values.size, 0)], "DRAM") for a in (values.ctypes.data, address)
        )
        handle = self._agent.initialize_xfer("READ", local, remote, sender)
        state = self._agent.transfer(handle)
        while state == "PROC" and time.monotonic() < end:
            time.sleep(POLL / 10)
            state = self._agent.check_xfer_state(handle)
        if state == "PROC":
            raise EngineTimeout(f"nixl: the sender's memory was not read within {timeout:g} s")
        self._agent.release_xfer_handle(handle)
        if state != "DONE":
            raise EngineError(f"nixl: the sender's memory cannot be read: {state}")

    @contextlib.contextmanager
    def _lent(self, size: int) -> Iterator[np.ndarray]:
        """Memory that is registered within the block, and for good when a transfer may still write there after it."""
        values, late = np.empty(size, dtype=np.uint8), False
        registered = self._agent.register_memory([(values.ctypes.data, size, 0, "")], "DRAM")
        try:
            yield values
        except EngineTimeout:
            late = True
            self._late.append(values)
            raise
        finally:
            if not late:
                self._agent.deregister_memory(registered)

    @contextlib.contextmanager
    def _sender(self, metadata: bytes) -> Iterator[str]:
        """The agent that the metadata tell of; after an error it is met anew the next time."""
        with self._lock:
            if metadata not in self._senders:
                self._senders[metadata] = self._agent.add_remote_agent(metadata)
            sender = self._senders[metadata]
        try:
            yield sender
        except BaseException:
            with self._lock, contextlib.suppress(Exception):
                if self._senders.pop(metadata, None):
                    self._agent.remove_remote_agent(sender)
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """nixl's errors, which have no common type, as EngineError."""
        try:
            yield
        except (EngineError, UserError):
            raise
        except Exception as error:
            raise EngineError(f"nixl: {type(error).__name__}: {error}") from None

    def _tidy(self) -> None:
        """Let others connect and read; free what they have released, and what has expired."""
        told = {note.decode(errors="replace") for notes in self._agent.get_new_notifs().values() for note in notes}
        now = time.monotonic()
        for number, kept in list(self._kept.items()):
            if number in told or kept.deadline < now:
                self._free(number)

    def _free(self, number: str) -> None:
        with self._lock:
            kept = self._kept.pop(number, None)
            if kept is not None and self._memory is not None:
                self._memory[kept.begin : kept.begin + STAMP] = 0
                self._memory[kept.end - STAMP : kept.end] = 0

    def _free_all(self) -> None:
        for number in list(self._kept):
            self._free(number)
