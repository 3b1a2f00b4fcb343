"""Client of the fork server, and a Sandbox on top of it for commands that are Python runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arcforge.core.errors import SandboxError
from arcforge.core.protocols import ExecResult
from arcforge.sandbox.folder import Folder, new_directory
from arcforge.sandbox.limits import Limits

GRACE_SECONDS = 20.0  # beyond a job's own timeout the server itself is taken for dead
FORK_LIMITS = Limits(cpu_seconds=2, memory_bytes=512 << 20, file_bytes=1 << 20, processes=0, output_bytes=8 << 10)


class ForkServer:
    """Runs Python in forked children of one tiny process. Starts on first use, restarts after it died.

    Belongs to one event loop at a time. For trusted code only: the limits are rlimits (see sandbox.limits). `preload` names
    trusted scripts that the server compiles once; `concurrency` bounds the children alive at once.
    """

    def __init__(self, preload: Sequence[Path] = (), concurrency: int = 8) -> None:
        self._preload = tuple(preload)
        self._concurrency = concurrency
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
        self._drop("the fork server died")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
        argv = [sys.executable, "-P", "-m", "arcforge.sandbox.forkserver", *map(str, self._preload)]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for us; the server ends with its socket
                )
        except OSError as error:
            ours.close()
            raise SandboxError(f"cannot start the fork server: {error}") from error
        self._socket, self._buffer, self._outgoing = ours, b"", bytearray()
        self._finalizer = weakref.finalize(self, _end, self._process, ours)

    async def run(
        self,
        directory: Path,
        argv: Sequence[str],
        timeout: float = 5.0,
        *,
        code: str = "",
        limits: Limits = FORK_LIMITS,
    ) -> ExecResult:
        """Run the Python file argv[0] (or the text `code`) in `directory` with sys.argv = argv; timeout in wall seconds.

        Raises SandboxError when the server died, cannot fork or does not answer. A crashed job is an exit code below 0.
        """
        self._attach()
        async with self._slots:
            self._attach()
            self._next += 1
            request = {
                "id": self._next, "directory": str(directory), "argv": list(argv), "code": code, "timeout": timeout,
                "limits": asdict(limits),
            }  # fmt: skip
            answer = await self._ask(request, timeout + GRACE_SECONDS)
        if "error" in answer:
            raise SandboxError(answer["error"])
        return ExecResult(**{key: value for key, value in answer.items() if key != "id"})

    async def close(self) -> None:
        """Kill every job and the server; returns when the process is gone. The server may be used (started) again."""
        process = self._process
        self._drop("the fork server was closed")
        if process:
            await asyncio.to_thread(process.wait, GRACE_SECONDS)

    async def __aenter__(self) -> ForkServer:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, request: dict[str, Any], patience: float) -> dict[str, Any]:
        future = self._waiting[request["id"]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience):
                self._post(request)
                return await future
        except TimeoutError:
            self._drop("the fork server hangs")
            raise SandboxError(f"the fork server did not answer for {patience:.0f} s") from None
        except asyncio.CancelledError:
            self._post({"cancel": request["id"]})
            raise
        finally:
            self._waiting.pop(request["id"], None)

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

    def _attach(self) -> None:
        """A live server, read by the running loop."""
        loop = asyncio.get_running_loop()
        if self.pid is None:
            self.start()
        if self._loop is not loop:
            if self._waiting and self._loop is not None and not self._loop.is_closed():
                raise SandboxError("a fork server belongs to one event loop at a time")
            self._waiting, self._slots, self._loop = {}, asyncio.Semaphore(self._concurrency), loop
            self._reading = None
        if self._reading is not self._socket:
            assert self._socket
            loop.add_reader(self._socket, self._readable)
            self._reading = self._socket

    def _readable(self) -> None:
        assert self._socket
        try:
            chunk = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop("the fork server died")
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for answer in map(json.loads, lines):
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
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ForkSandbox(Folder):
    """A Sandbox whose commands are Python runs (`python file.py ...` or `python -c code`), each in a forked child.

    For trusted code only (rlimits). Any other command raises ValueError, and so does stdin.
    """

    def __init__(self, server: ForkServer, root: Path | None = None, limits: Limits = FORK_LIMITS) -> None:
        """`root` is taken over (close() deletes it); None makes a new temporary directory."""
        super().__init__(root or new_directory())
        self._server, self._limits = server, limits

    async def exec(self, argv: Sequence[str], timeout: float = 10.0, stdin: str = "") -> ExecResult:
        if len(argv) < 2 or argv[0] != "python" or stdin:
            raise ValueError(f"a fork sandbox runs only `python FILE` or `python -c CODE` without stdin, not {argv!r}")
        self._check()
        if argv[1] == "-c":
            return await self._server.run(
                self.root, ["-c", *argv[3:]], timeout, code=argv[2] or "pass", limits=self._limits
            )
        return await self._server.run(self.root, argv[1:], timeout, limits=self._limits)
