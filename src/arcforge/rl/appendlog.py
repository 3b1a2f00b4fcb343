"""Append-only files with one writer and any number of polling readers, safe against `kill -9` and power loss.

A record is on the disk when `append` returns. A record that a killed writer left half-written is invisible to readers
and moved to `<file>.torn` by the next writer, which then continues after the last whole record.

    frames   one zstd frame per record, with content checksum
    rows     one JSON object per line
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from arcforge.core.errors import UserError

CHUNK = 1 << 16

# Splits bytes into whole records and the number of bytes they took.
Split = Callable[[bytes], tuple[list[bytes], int]]


def split_rows(data: bytes) -> tuple[list[bytes], int]:
    end = data.rfind(b"\n") + 1
    return data[:end].splitlines(), end


def split_frames(data: bytes) -> tuple[list[bytes], int]:
    """Contents of the whole zstd frames at the start of `data`, up to the first that is torn or fails its checksum."""
    contents, position = [], 0
    while position < len(data):
        decoder, parts, fed = zstandard.ZstdDecompressor().decompressobj(), [], position
        try:
            while not decoder.eof and fed < len(data):
                parts.append(decoder.decompress(data[fed : fed + CHUNK]))
                fed = min(fed + CHUNK, len(data))
        except zstandard.ZstdError:
            break
        if not decoder.eof:
            break
        position = fed - len(decoder.unused_data)
        contents.append(b"".join(parts))
    return contents, position


class Appender:
    """The one writer of a file. UserError when another process holds it."""

    def __init__(self, path: Path, split: Split) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - held for the life of the writer
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{path}: another process writes here; wait for it or stop it") from None
        self._cut_torn_tail(split)

    def append(self, record: bytes) -> None:
        """Returns when the record is on the disk."""
        written = self._file.write(record)
        while written < len(record):
            written += self._file.write(record[written:])
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _cut_torn_tail(self, split: Split) -> None:
        data = self.path.read_bytes()
        _, end = split(data)
        if end < len(data):
            with open(self.path.with_name(self.path.name + ".torn"), "ab") as torn:
                torn.write(data[end:])
            self._file.truncate(end)
            os.fsync(self._file.fileno())


class Tail:
    """A reader that remembers its place. `poll()` returns the records completed since the last call; never blocks."""

    def __init__(self, path: Path, split: Split) -> None:
        self.path, self._split, self._offset = path, split, 0

    def poll(self) -> list[bytes]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        records, consumed = self._split(data)
        self._offset += consumed
        return records


def encode_row(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def encode_frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)
