"""The client's end of a server process: JSON lines over a socket, answers by number. Starts on first use, again after it died."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from arcforge.core.errors import SandboxError

GRACE_SECONDS = 20.0  # beyond a job's own timeout the server itself is taken for dead
_CHUNK = 1 << 16


class ServerProcess:
    """Belongs to one event loop at a time. Start it from a thread that stays: some servers end with the thread that started them.

    command: the argument list, asked for at every start. environment: added to this process's own. name: what messages call it.
    """

    def __init__(
        self, command: Callable[[], Sequence[str]], name: str, environment: dict[str, str] | None = None
    ) -> None:
        self._command, self._name, self._environment = command, name, environment or {}
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: socket.socket | None = None
        self._outgoing = bytearray()
        self._buffer = b""
        self._next = 0
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when none runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process now (before a big import, say). SandboxError when it cannot be started."""
        if self.pid is not None:
            return
        self._drop(f"the {self._name} died")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, **self._environment},
                    start_new_session=True,  # Ctrl-C is for us; the server ends with its socket
                )
        except OSError as error:
            ours.close()
            raise SandboxError(f"cannot start the {self._name}: {error}") from error
        self._socket, self._buffer, self._outgoing = ours, b"", bytearray()
        self.starts += 1
        self._finalizer = weakref.finalize(self, _end, self._process, ours)

    def attach(self) -> bool:
        """A live server, read by the running loop. True when the loop is new to it."""
        loop = asyncio.get_running_loop()
        if self.pid is None:
            self.start()
        is_new = self._loop is not loop
        if is_new:
            if self._waiting and self._loop is not None and not self._loop.is_closed():
                raise SandboxError(f"a {self._name} belongs to one event loop at a time")
            self._waiting, self._loop, self._reading = {}, loop, None
        if self._reading is not self._socket:
            assert self._socket
            loop.add_reader(self._socket, self._readable)
            self._reading = self._socket
        return is_new

    async def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer, its number taken off. SandboxError when the server died, hangs or answers with an error.

        timeout: what the server may take by its own rules; GRACE_SECONDS are added.
        """
        self.attach()
        self._next += 1
        number = self._next
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        patience = timeout + GRACE_SECONDS
        try:
            async with asyncio.timeout(patience):
                self._post({**request, "id": number})
                answer = await future
        except TimeoutError:
            self._drop(f"the {self._name} hangs")
            raise SandboxError(f"the {self._name} did not answer for {patience:.0f} s") from None
        except asyncio.CancelledError:
            self._post({"cancel": number})
            raise
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise SandboxError(answer["error"])
        return {key: value for key, value in answer.items() if key != "id"}

    async def close(self) -> None:
        """Kill every job and the server; returns when the process is gone. It may be used (started) again."""
        process = self._process
        self._drop(f"the {self._name} was closed")
        if process:
            await asyncio.to_thread(process.wait, GRACE_SECONDS)

    def _post(self, request: dict[str, Any]) -> None:
        self._outgoing += json.dumps(request).encode() + b"\n"
        self._writable()

    def _writable(self) -> None:
        """Send what the socket takes now; the loop calls again when it takes more. A dead server is seen by the reader."""
        if not self._socket or not self._loop:
            return
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._writable)
            return
        except OSError:
            self._outgoing.clear()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        assert self._socket
        try:
            chunk = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop(f"the {self._name} died")
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for answer in map(json.loads, lines):
            self._told(answer)

    def _told(self, answer: dict[str, Any]) -> None:
        future = self._waiting.get(answer["id"])
        if future and not future.done():
            future.set_result(answer)

    def _drop(self, reason: str) -> None:
        """Let go of the process (it ends on end of file, or is killed) and fail whoever waits for it."""
        if self._socket and self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if self._finalizer:
            self._finalizer()
        self._process = self._socket = self._reading = self._finalizer = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SandboxError(reason))
        self._waiting.clear()


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
