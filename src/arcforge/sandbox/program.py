"""A program of its own at work in a directory: started, waited for, ended with everything in its process group.

For programs that are trusted with this user's rights, like one that the user would start himself: they get the whole
environment and no limit but the wall clock. `ProcessSandbox` runs the commands of others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from arcforge.core.errors import SandboxError
from arcforge.sandbox.process import kill_group

TAIL_BYTES = 4096
DRAIN_SECONDS = 1.0
# The shell becomes the program. What it leaves behind in the group waits for the end of the pipe that was its input, and
# then kills the group: when whoever started it was killed, nothing of the program goes on.
_WRAPPER = (
    "exec 9<&0; ( { read line <&9; kill -KILL 0; } </dev/null >/dev/null 2>&1 & ); "
    'exec <"$1"; shift; exec 9<&-; exec "$@"'
)


class Program:
    """One run. `async with Program(...) as program` starts it, and leaves nothing of it behind.

    A process that leaves the group (a daemon) outlives it.
    """

    def __init__(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str], stdin: Path) -> None:
        """environment: what is added to this process's own. stdin: a file."""
        self._argv, self._directory, self._stdin = list(argv), directory, stdin
        self._environment = {**os.environ, **environment}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Program:
        """SandboxError when it cannot be started. A program that is not found ends with 127."""
        async with AsyncExitStack() as stack:
            self._out, out = await _tail(stack)
            self._err, err = await _tail(stack)
            stdin, lifeline = os.pipe()
            stack.callback(os.close, lifeline)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    "/bin/sh", "-c", _WRAPPER, "sh", str(self._stdin), *self._argv,
                    cwd=self._directory, env=self._environment, stdin=stdin, stdout=out, stderr=err,
                    start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise SandboxError(f"cannot start {self._argv[0]}: {error}") from error
            finally:
                for end in (stdin, out, err):
                    os.close(end)
            stack.push_async_callback(self._process.wait)
            stack.callback(kill_group, self._process.pid)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def wait(self, seconds: float) -> int | None:
        """The exit code (-N for signal N), None where it still runs after `seconds`; it and its group are ended either way."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        code = self._process.returncode
        kill_group(self._process.pid)
        for tail in (self._out, self._err):
            await tail.drained()
        return code

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr, of stdout where that is empty: at most TAIL_BYTES, on one line."""
        return self._err.text or self._out.text


class _Tail(asyncio.Protocol):
    """The end of what a pipe carries."""

    def __init__(self) -> None:
        self._kept, self._ended = bytearray(), asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-TAIL_BYTES]

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    async def drained(self) -> None:
        """Until all was read. A process that left the group may hold the pipe open: it is not waited for long."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass

    @property
    def text(self) -> str:
        return " ".join(self._kept.decode(errors="replace").split())


async def _tail(stack: AsyncExitStack) -> tuple[_Tail, int]:
    """One that is read until the stack ends, and the end of the pipe to write to."""
    read_end, write_end = os.pipe()
    try:
        transport, tail = await asyncio.get_running_loop().connect_read_pipe(_Tail, os.fdopen(read_end, "rb", 0))
    except BaseException:
        os.close(write_end)
        raise
    stack.callback(transport.close)
    return tail, write_end
