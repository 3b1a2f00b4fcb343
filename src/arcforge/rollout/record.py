"""Trajectory files, `trajectories/<stage>-<n>.jsonl.zst`: append-only, one zstd frame per append, safe against a kill."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import zstandard

from arcforge.core.errors import UserError
from arcforge.core.trajectory import Trajectory

_CHUNK = 1 << 16


class TrajectoryWriter:
    """The one writer of a file. A frame that a killed writer left torn is moved to `<file>.torn` on the next opening.

    UserError when another process writes here.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{path}: another process writes here; wait for it or stop it") from None
        data = path.read_bytes()
        end = max((end for _, end in _frames(data)), default=0)
        if end < len(data):
            with open(path.with_name(path.name + ".torn"), "ab") as torn:
                torn.write(data[end:])
            self._file.truncate(end)

    def append(self, *trajectories: Trajectory) -> None:
        """Write the trajectories as one frame; they are on the disk when this returns."""
        if not trajectories:
            return
        lines = "".join(f"{trajectory.model_dump_json()}\n" for trajectory in trajectories)
        frame = memoryview(self._compressor.compress(lines.encode()))
        while frame:
            frame = frame[self._file.write(frame) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """The trajectories of every whole frame, in order; a torn tail is left out. Missing file: none."""
    data = path.read_bytes() if path.exists() else b""
    for lines, _ in _frames(data):
        yield from (Trajectory.model_validate_json(line) for line in lines.splitlines())


class TrajectoryTail:
    """A reader of a growing file. `poll()` returns the trajectories completed since the last call; it never waits."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def poll(self) -> list[Trajectory]:
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            frames = list(_frames(file.read()))
        self._offset += frames[-1][1] if frames else 0
        return [Trajectory.model_validate_json(line) for lines, _ in frames for line in lines.splitlines()]


def _frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(content, end offset) of the whole frames at the start of `data`, up to the first torn or damaged one."""
    position = 0
    while position < len(data):
        decoder, parts, fed = zstandard.ZstdDecompressor().decompressobj(), [], position
        try:
            while not decoder.eof and fed < len(data):
                parts.append(decoder.decompress(data[fed : fed + _CHUNK]))
                fed = min(fed + _CHUNK, len(data))
        except zstandard.ZstdError:
            return
        if not decoder.eof:
            return
        position = fed - len(decoder.unused_data)
        yield b"".join(parts), position
