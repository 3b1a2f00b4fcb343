"""One component's process on the node where Ray placed it; `launch.ray` runs this class as an actor, one per component.

The process writes to a file without a name on the node, from which the launcher takes the log piece by piece: nothing needs
to be shared between nodes, a launcher that is slow to read holds nobody up, and nothing is left behind by a kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arcforge.launch.local import POLL_SECONDS, read_port, signal_group, silent, spawn

CHUNK = 64 * 1024
"""Bytes of log per report; Ray carries results of this size in the answer itself, outside the object store."""


@dataclass(frozen=True)
class Order:
    """What to start. Paths are absolute and lie on the node."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    heartbeat: Path | None
    heartbeat_timeout: float
    port_file: Path | None


@dataclass(frozen=True)
class Report:
    """host: the node's address. exit_code: None until the process has ended and `output` completes its log."""

    host: str
    exit_code: int | None
    silent: bool
    port: int | None
    output: bytes


class NodeProcess:
    """Starts the process at once. Coroutines only: Ray then runs all of it in one thread that lives as long as the actor, to
    which the process is tied (`launch.child`); when the actor is killed in whatever way, the kernel kills the process."""

    def __init__(self, order: Order) -> None:
        from ray.util import get_node_ip_address

        self._order, self._host = order, get_node_ip_address()
        if order.port_file is not None:
            order.port_file.unlink(missing_ok=True)
        self._output = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, open as long as the actor lives
        self._process = spawn(order.argv, order.env, self._output)
        self._started = time.monotonic()

    async def report(self, offset: int, seconds: float) -> Report:
        """Answer when the process ends, when a full CHUNK of log waits, and at the latest after `seconds`.

        offset: bytes of the log that the launcher has. The answer that tells the end also ends what the process left in its
        group, since the actor and its resources are given back after it.
        """
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and self._waiting(offset) < CHUNK and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        code = self._process.poll()  # read before the log, which is complete if the process has ended here
        output = os.pread(self._output.fileno(), CHUNK, offset)
        ended = code is not None and len(output) < CHUNK
        if ended:
            signal_group(self._process, signal.SIGKILL)
        order = self._order
        quiet = silent(order.heartbeat, self._started, order.heartbeat_timeout)
        return Report(self._host, code if ended else None, quiet, read_port(order.port_file), output)

    async def signal(self, number: int) -> None:
        signal_group(self._process, signal.Signals(number))

    def _waiting(self, offset: int) -> int:
        return os.fstat(self._output.fileno()).st_size - offset
