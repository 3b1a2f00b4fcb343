"""ProcessSandbox: a temporary directory and plain child processes under rlimits."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from arcforge.core.errors import SandboxError
from arcforge.core.protocols import ExecResult
from arcforge.sandbox.folder import Folder, copy_directory, new_directory
from arcforge.sandbox.limits import Limits

# The shell sets the limits and becomes the command: no Python code runs between fork and exec, which would be unsafe in
# a parent with threads. The flag for processes is -u in bash and zsh, -p in dash.
_WRAPPER = (
    'ulimit -c 0; ulimit -t "$1"; ulimit -f "$2"; ulimit -v "$3" 2>/dev/null; '
    'ulimit -u "$4" 2>/dev/null || ulimit -p "$4" 2>/dev/null; shift 4; exec "$@"'
)


class ProcessSandbox(Folder):
    """Runs commands as processes of this user in a temporary directory. Implements core.protocols.Sandbox.

    For trusted code only: the limits are rlimits, a wall timeout that kills the process group, capped output and a small
    environment. A hostile program can still read this user's files, use the network and leave the process group.
    """

    def __init__(self, root: Path | None = None, limits: Limits | None = None, source: Path | None = None) -> None:
        """`root` is taken over (close() deletes it); None makes a new temporary directory. source: what changes are told against;
        an empty directory if not given."""
        super().__init__(root or new_directory(), source)
        self.limits = limits or Limits()

    @classmethod
    def copy_of(cls, source: Path, limits: Limits | None = None) -> ProcessSandbox:
        return cls(copy_directory(source), limits, source)

    async def exec(self, argv: Sequence[str], timeout: float | None = None, stdin: str = "") -> ExecResult:
        """Run `argv` (no shell). Exit code 127 when the program is not found, -9 when the wall timeout killed it."""
        self._check()
        timeout = self.limits.wall_seconds if timeout is None else timeout
        started = time.monotonic()
        process = await self._spawn(argv)
        outputs = [asyncio.create_task(self._drain(stream)) for stream in (process.stdout, process.stderr)]
        try:
            timed_out = not await self._finish(process, stdin, timeout)
        finally:
            _kill_group(process.pid)
            _, late = await asyncio.wait(outputs, timeout=1.0)
            for task in late:  # a process that left the group still holds the pipe
                task.cancel()
        code = await process.wait()
        texts = [("", True) if task in late else task.result() for task in outputs]
        return ExecResult(
            exit_code=code,
            stdout=texts[0][0],
            stderr=texts[1][0],
            timed_out=timed_out,
            truncated=texts[0][1] or texts[1][1],
            seconds=time.monotonic() - started,
        )

    def like(self, root: Path) -> Self:
        return type(self)(root, self.limits, self.source)

    async def _spawn(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        limits, pipe = self.limits, asyncio.subprocess.PIPE
        numbers = (limits.cpu_seconds, limits.file_bytes >> 9, limits.memory_bytes >> 10, limits.processes)
        try:
            return await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _WRAPPER, "sh", *map(str, numbers), *argv,
                cwd=self.root, env=self._environment(), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise SandboxError(f"cannot start {argv[0] if argv else 'an empty command'}: {error}") from error

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TZ", "VIRTUAL_ENV") if key in os.environ}
        return {**kept, "HOME": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}

    @staticmethod
    async def _finish(process: asyncio.subprocess.Process, stdin: str, timeout: float) -> bool:
        """Feed stdin and wait; False when the wall timeout ended it."""
        assert process.stdin
        try:
            async with asyncio.timeout(timeout):
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(stdin.encode())
                    await process.stdin.drain()
                process.stdin.close()
                await process.wait()
        except TimeoutError:
            return False
        return True

    async def _drain(self, stream: asyncio.StreamReader | None) -> tuple[str, bool]:
        """All of a stream, kept up to the cap: (text, truncated)."""
        assert stream
        kept, total = bytearray(), 0
        while chunk := await stream.read(1 << 16):
            total += len(chunk)
            kept += chunk[: self.limits.output_bytes - len(kept)]
        return kept.decode(errors="replace"), total > len(kept)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
