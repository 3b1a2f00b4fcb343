"""Append-only JSON rows with one writer and any number of polling readers, safe against `kill -9` and power loss.

A row is on the disk when `append` returns. A row that a killed writer left half-written is invisible to readers and moved
to `<file>.torn` by the next writer, which then continues after the last whole row. Trajectories have the same in
`rollout.record`, as compressed frames.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError


class RowWriter:
    """The one writer of a file. UserError when another process holds it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - held for the life of the writer
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{path}: another process writes here; wait for it or stop it") from None
        data = path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with open(path.with_name(path.name + ".torn"), "ab") as torn:
                torn.write(data[end:])
            self._file.truncate(end)

    def append(self, row: dict[str, Any]) -> None:
        """Returns when the row is on the disk."""
        rest = memoryview(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class RowTail:
    """A reader that remembers its place. `poll()` returns the rows completed since the last call; it never waits."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def poll(self) -> list[dict[str, Any]]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        return [json.loads(line) for line in data[:end].splitlines()]
