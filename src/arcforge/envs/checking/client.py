"""Client of the checking process."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from arcforge.core.errors import TaskError, VerifierError
from arcforge.core.messages import Value

PATIENCE_SECONDS = 180.0  # of one comparison with the start of the process; its other limits are in checking.worker
CPU_SECONDS = 4  # of one comparison
Kind = Literal["expression", "quantity", "slide"]


class Comparison(Value):
    """equal: whether the answer is the reference. note: why it could not be told to be, if it could not be read."""

    equal: bool
    note: str = ""


class Checker:
    """Compares answers one after another in a process that starts on first use and again after it died.

    `equal` raises VerifierError when the process fails and TaskError when the reference cannot be read. An answer that
    cannot be read or compared within `cpu_seconds` or the worker's other limits is not equal. A slide has no equal: it can be
    read, or it cannot.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._thread = ThreadPoolExecutor(1, "checker")  # any event loop may ask; one comparison at a time

    async def equal(self, kind: Kind, reference: Any, answer: str) -> Comparison:
        request = {"kind": kind, "reference": reference, "answer": answer, "cpu_seconds": self._cpu_seconds}
        said = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, request)
        if "error" in said:
            raise (TaskError if said["of"] == "reference" else VerifierError)(f"{kind} {reference!r}: {said['error']}")
        return Comparison(**said)

    async def close(self) -> None:
        """End the process; the checker may be used again."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            return json.loads(_line(process.stdout.fileno(), time.monotonic() + PATIENCE_SECONDS))
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            self._drop()
            raise VerifierError(f"the checking process failed: {type(error).__name__}: {error}") from error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._drop()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "arcforge.envs.checking.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for us; the process ends with its stdin
                )
            except OSError as error:
                raise VerifierError(f"cannot start the checking process: {error}") from error
            self._finalizer = weakref.finalize(self, _end, self._process)
        return self._process

    def _drop(self) -> None:
        if self._finalizer:
            self._finalizer()
        self._process = self._finalizer = None


def _line(descriptor: int, deadline: float) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"no answer for {PATIENCE_SECONDS:.0f} s")
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            raise EOFError("it ended")
        data += chunk
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            try:
                pipe.close()
            except OSError:
                continue
