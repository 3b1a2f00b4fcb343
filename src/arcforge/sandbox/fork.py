"""Client of the fork server, and a Sandbox on top of it for commands that are Python runs."""

from __future__ import annotations

import asyncio
import shutil
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from arcforge.core.protocols import ExecResult
from arcforge.sandbox.channel import ServerProcess
from arcforge.sandbox.folder import Folder, new_directory
from arcforge.sandbox.host import bubblewrap_works, contained_python, tell_once
from arcforge.sandbox.limits import Limits

FORK_LIMITS = Limits(cpu_seconds=2, memory_bytes=512 << 20, file_bytes=1 << 20, processes=0, output_bytes=8 << 10)


class ForkServer:
    """Runs Python in forked children of one tiny process. Starts on first use, restarts after it died.

    Where bubblewrap works the process has namespaces of its own: no network, no file of this machine but Python's own, and each
    job sees no directory but its own, which must lie in `ground`. Elsewhere it is for trusted code only: the limits are
    rlimits (see sandbox.limits). Belongs to one event loop at a time. `preload` names trusted scripts that the server compiles
    once; `concurrency` bounds the children alive at once.
    """

    def __init__(self, preload: Sequence[Path] = (), concurrency: int = 8, ground: Path | None = None) -> None:
        """ground: the folder in which the directories of jobs lie; an own temporary one, deleted by close(), if not given."""
        self._preload = tuple(preload)
        self._concurrency = concurrency
        self._given = ground.resolve() if ground else None
        self._own: Path | None = None
        self._server = ServerProcess(self._command, "fork server", {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"})

    @property
    def ground(self) -> Path:
        """The folder in which the directories of jobs lie."""
        if self._given:
            return self._given
        if self._own is None:
            self._own = new_directory()
            weakref.finalize(self, shutil.rmtree, self._own, ignore_errors=True)
        return self._own

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when none runs."""
        return self._server.pid

    def start(self) -> None:
        """Start the process now (before a big import, say). SandboxError when it cannot be started."""
        self._server.start()

    def new_directory(self, files: Mapping[str, str] | None = None) -> Path:
        """A fresh directory for jobs, holding `files`."""
        return new_directory(files, self.ground)

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

        Raises SandboxError when the server died, cannot fork or does not answer, ValueError for a directory outside the ground.
        A crashed job is an exit code below 0.
        """
        if not directory.resolve().is_relative_to(self.ground):
            raise ValueError(f"{directory} is not in the fork server's ground")
        if self._server.attach():
            self._slots = asyncio.Semaphore(self._concurrency)
        async with self._slots:
            request = {
                "directory": str(directory.resolve()), "argv": list(argv), "code": code, "timeout": timeout,
                "limits": asdict(limits),
            }  # fmt: skip
            return ExecResult(**await self._server.ask(request, timeout))

    async def close(self) -> None:
        """Kill every job and the server; returns when the process is gone. The server may be used (started) again."""
        await self._server.close()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None

    async def __aenter__(self) -> ForkServer:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _command(self) -> list[str]:
        python = [sys.executable, "-P", "-m", "arcforge.sandbox.forkserver", str(self.ground), *map(str, self._preload)]
        if not bubblewrap_works():
            tell_once(
                "bubblewrap does not work here: Python jobs run as plain processes of this user, for trusted code only"
            )
            return python
        return [*contained_python(self._preload, self.ground), *python]


class ForkSandbox(Folder):
    """A Sandbox whose commands are Python runs (`python file.py ...` or `python -c code`), each in a forked child.

    Contained as far as its server is. Any other command raises ValueError, and so does stdin.
    """

    def __init__(self, server: ForkServer, root: Path | None = None, limits: Limits = FORK_LIMITS) -> None:
        """`root`, in the server's ground, is taken over (close() deletes it); None makes a new directory."""
        super().__init__(root or server.new_directory())
        self._server, self._limits = server, limits

    def like(self, root: Path) -> Self:
        return type(self)(self._server, root, self._limits)

    async def exec(self, argv: Sequence[str], timeout: float | None = None, stdin: str = "") -> ExecResult:
        if len(argv) < 2 or argv[0] != "python" or stdin:
            raise ValueError(f"a fork sandbox runs only `python FILE` or `python -c CODE` without stdin, not {argv!r}")
        self._check()
        timeout = self._limits.wall_seconds if timeout is None else timeout
        if argv[1] == "-c":
            return await self._server.run(
                self.root, ["-c", *argv[3:]], timeout, code=argv[2] or "pass", limits=self._limits
            )
        return await self._server.run(self.root, argv[1:], timeout, limits=self._limits)
