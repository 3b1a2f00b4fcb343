"""Peak memory of one call, measured in a process of its own (Linux)."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT = 600.0


def peak_megabytes(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> float:
    """Resident megabytes that the call which `prepare(*arguments)` returns adds at its height to what was there before it.

    Blocks above 256 KiB go back to the system as soon as they are freed, so that the height is what was in use and not how the
    allocator's heap happened to be cut up.
    """
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(256 << 10)
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=_measure, args=(other, prepare, arguments), daemon=True)
    process.start()
    try:
        other.close()  # so that a process that dies ends the wait
        if not mine.poll(TIMEOUT):
            raise SystemExit(f"{prepare.__name__}{arguments}: no memory figure after {TIMEOUT:.0f} s")
        return mine.recv()
    except EOFError:
        raise SystemExit(f"{prepare.__name__}{arguments}: its process ended without a figure") from None
    finally:
        process.kill()
        process.join(30)


def _measure(pipe: Connection, prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    call = prepare(*arguments)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _kilobytes("VmRSS")
    call()
    pipe.send((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])
