"""Named segments of shared memory: files of the memory file system, written whole, mapped by any process of this user.

Plain files instead of `multiprocessing.shared_memory`: whoever only reads a segment must not remove it when it ends, and
that module's tracker does.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arcforge.core.errors import UserError

MEMORY = Path("/dev/shm")
PART = ".part"
"""Ends the name of a segment that is being written."""


def folder() -> Path:
    """Where segments lie; a system without a memory file system has them in its temporary folder."""
    return MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())


def segment(name: str) -> Path:
    """The file of a segment. UserError for a name that could leave the folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name) or name.endswith(PART):
        raise UserError(f"shared memory {name[:80]!r}: a name has letters, digits, dots, dashes and underscores only")
    return folder() / name


@contextmanager
def written(name: str) -> Iterator[Path]:
    """Yields a file, readable by this user only, to write the contents to; they appear under `name` when the block ends well.

    What stood there stays valid for those who have mapped it. OSError: no room. One writer per name.
    """
    final = segment(name)
    part = final.with_name(final.name + PART)
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    try:
        yield part
        os.replace(part, final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def mapped(name: str) -> memoryview:
    """The segment's bytes, mapped and not copied; valid as long as something refers to them, also after `remove`.

    Writing to them changes them for the caller alone. FileNotFoundError or another OSError: it cannot be read.
    """
    descriptor = os.open(segment(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{name} is not a file")
        if not status.st_size:  # an empty file cannot be mapped
            return memoryview(bytearray())
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)


def remove(name: str) -> None:
    """Its memory is free once nobody has it mapped. A segment that is not there is fine."""
    segment(name).unlink(missing_ok=True)
