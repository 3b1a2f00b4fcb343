"""Run folders: everything a run leaves behind, written so that a kill at any moment loses nothing that was finished.

config.toml  metrics.jsonl  events.jsonl  stages/<n>-<name>/{checkpoint,...,done.json}  trajectories/*.jsonl.zst  report.html
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from arcforge.core.errors import UserError


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write to a temporary name beside `path`, fsync, rename: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; a torn last line (the writer was killed) is left out. Missing file: no rows."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class RunFolder:
    """One run's folder. `lock()` refuses a second run in the same folder; two runs in two folders never meet."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    def create(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.write_text("")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: the run folder cannot be written: {error.strerror}; set run.folder"
            ) from None
        return self

    def lock(self) -> RunFolder:
        self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held for the life of the run
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{self.path}: another process runs in this folder; wait for it or set run.folder"
            ) from None
        return self

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def trajectories(self) -> Path:
        return self.path / "trajectories"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def stage(self, number: int, name: str) -> Path:
        return self.path / "stages" / f"{number:02d}-{name}"

    def find_stage(self, name: str) -> Path:
        """The folder of a stage by its name. UserError when the run has not reached it."""
        found = sorted((self.path / "stages").glob(f"[0-9][0-9]-{name}"))
        if not found:
            raise UserError(f"{self.path}: no stage {name!r} here; run the recipe to that stage first")
        return found[0]
