"""A program of its own at work in a directory: started, waited for, ended with everything that it started.

For programs that are trusted with this user's rights, like one that the user would start himself: no limit but the wall clock.
`ProcessSandbox` runs the commands of others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from arcforge.core.errors import SandboxError
from arcforge.sandbox import keeper

KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""What a program sees of this process's environment: keys and tokens are not among it."""
TAIL_BYTES = 4096
DRAIN_SECONDS = 1.0
END_SECONDS = 2 * keeper.SWEEP_SECONDS


class Program:
    """One run, beside a keeper (`sandbox.keeper`). `async with Program(...) as program` starts it, and leaves nothing of it
    behind; nor does this process when it is killed."""

    def __init__(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str], stdin: Path) -> None:
        """environment: all that it sees beside `KEPT`. stdin: a file, by its whole path."""
        self._argv, self._directory, self._stdin = list(argv), directory, stdin
        self._environment = {key: os.environ[key] for key in KEPT if key in os.environ} | dict(environment)
        self._stack = AsyncExitStack()
        self._lifeline: int | None = None

    async def __aenter__(self) -> Program:
        """SandboxError when it cannot be started. A program that is not found ends with 127."""
        async with AsyncExitStack() as stack:
            self._out, out = await _tail(stack)
            self._err, err = await _tail(stack)
            stdin, self._lifeline = os.pipe()
            stack.callback(self._let_go)
            command = [sys.executable, "-I", "-S", keeper.__file__, str(self._stdin), *self._argv]
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command, cwd=self._directory, env=self._environment,
                    stdin=stdin, stdout=out, stderr=err, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise SandboxError(f"cannot start {self._argv[0]}: {error}") from error
            finally:
                for end in (stdin, out, err):
                    os.close(end)
            stack.push_async_callback(self._end)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def wait(self, seconds: float) -> int | None:
        """The exit code (-N for signal N), None where it still ran after `seconds`; what it started has ended either way."""
        try:
            async with asyncio.timeout(seconds):
                code = await self._process.wait()
        except TimeoutError:
            code = None
            await self._end()
        await asyncio.gather(self._out.drained(), self._err.drained())
        return code

    @property
    def last_words(self) -> str:
        """The end of what it wrote to stderr, of stdout where that is empty: at most TAIL_BYTES, on one line."""
        return self._err.text or self._out.text

    async def _end(self) -> None:
        """Have the keeper end it, also one that somebody stopped."""
        self._let_go()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


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
        """Until all was read. A process that outlived its keeper may hold the pipe open: it is not waited for long."""
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
