"""What a process inside a sandbox does with its files for somebody outside. Standard library only; forked, never executed.

Every path is followed inside, as the sandbox's own commands would follow it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

FILE_CAP = 1 << 20
OPERATIONS = ("read", "write", "list", "stat", "remove")
MISTAKE = 100
"""Exit code of an operation on files that the caller asked for in vain; its standard error holds errno and text."""


def run_inside(argv: Sequence[str], directory: str, environment: Mapping[str, str]) -> NoReturn:
    """Become the command. A directory or program that is not there is an exit code, as a shell has it: 127 or 126."""
    what = directory
    try:
        os.chdir(directory)
        what = argv[0]
        os.execvpe(what, list(argv), environment)
    except OSError as error:
        os.write(2, f"{what}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) and what == argv[0] else 126)


def inside_operation(request: dict[str, Any], directory: str) -> NoReturn:
    """One of {"read": path}, {"write": path, "mode"} (the content is standard input), {"list": skipped names}, {"stat": path} and
    {"remove": path} in `directory`."""
    status = 0
    try:
        os.chdir(directory)
        if "read" in request:
            say(_read(request["read"]))
        elif "write" in request:
            _write(request["write"], request["mode"])
        elif "stat" in request:
            state = os.lstat(request["stat"])
            say(json.dumps({"mode": state.st_mode, "size": state.st_size, "modified": state.st_mtime}).encode())
        elif "remove" in request:
            shutil.rmtree(request["remove"])
        else:
            say(os.fsencode("\0".join(_list(set(request["list"])))))
    except OSError as error:
        os.write(2, f"{error.errno or errno.EIO} {error.strerror}".encode())
        status = MISTAKE
    os._exit(status)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe in its place would wait for a writer
    state = os.fstat(descriptor)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a directory")
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a file")
    if state.st_size > FILE_CAP:
        raise OSError(errno.EFBIG, "larger than 1 MiB")
    parts = []
    while chunk := os.read(descriptor, 1 << 16):
        parts.append(chunk)
    return b"".join(parts)


def _write(path: str, mode: int | None) -> None:
    if parent := os.path.dirname(path):
        os.makedirs(parent, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "not a file")
    while chunk := os.read(0, 1 << 16):
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]
    if mode is not None:
        os.fchmod(descriptor, mode)
    os.close(descriptor)


def _list(skipped: set[str]) -> list[str]:
    found: list[str] = []
    for folder, folders, names in os.walk("."):
        folders[:] = sorted(name for name in folders if name not in skipped)
        found += [os.path.join(folder, name).removeprefix("./") for name in sorted(names)]
        if len(found) > 100_000:
            raise OSError(errno.EFBIG, "more than 100,000 files")
    return sorted(found)


def say(raw: bytes) -> None:
    """All of it to standard output."""
    sys.stdout.flush()
    while raw:
        raw = raw[os.write(1, raw) :]
