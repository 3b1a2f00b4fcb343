"""Publishing weights: a folder per version, and one small file that names the newest. No reader ever sees a part.

weights/<version>/...      written under a temporary name, fsynced, renamed
weights/published.json     {"version": 3, "folder": "3"}, replaced atomically after the folder is complete
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.core.runs import atomic_write

POINTER = "published.json"


class Published(Value):
    """A complete version of the weights. folder: absolute path of a Hugging Face checkpoint folder."""

    version: int
    folder: Path


def latest(root: Path) -> Published | None:
    """The newest published version under `root`, or None before the first. Never blocks."""
    try:
        row = json.loads((root / POINTER).read_bytes())
    except FileNotFoundError:
        return None
    return Published(version=row["version"], folder=(root / row["folder"]).absolute())


class Publisher:
    """The one writer of `root`. Keeps the last `keep` versions: engines may still be reading the one before."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        self.root, self.keep = root, keep
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(".part-*"):
            shutil.rmtree(leftover)

    def publish(self, version: int, save: Callable[[Path], None]) -> Published:
        """Call `save(folder)` on a fresh folder, then make it the newest. UserError unless the version grows.

        Version numbers are never used twice, also after a resume: a token's version must name one set of weights.
        """
        newest = latest(self.root)
        if newest is not None and version <= newest.version:
            raise UserError(f"{self.root}: version {version} cannot follow {newest.version}; versions only grow")
        part, folder = self.root / f".part-{version}", self.root / str(version)
        part.mkdir()
        save(part)
        _fsync_tree(part)
        if folder.exists():  # renamed by a process that died before it could replace the pointer
            shutil.rmtree(folder)
        os.replace(part, folder)
        atomic_write(self.root / POINTER, json.dumps({"version": version, "folder": folder.name}))
        self._prune()
        return Published(version=version, folder=folder.absolute())

    def _prune(self) -> None:
        versions = sorted(int(path.name) for path in self.root.iterdir() if path.name.isdigit())
        for version in versions[: -self.keep]:
            shutil.rmtree(self.root / str(version))


def _fsync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
