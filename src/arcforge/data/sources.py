"""Where text comes from: the Python standard library of this machine, or any folder of .py files.

The held-out split is by top-level module, so a package is never on both sides, and by hash, so the same module lands on
the same side on every machine and Python version.
"""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.errors import UserError

# Folders that are tests, demonstrations, third-party code or data written as Python.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "idlelib", "turtledemo", "pydoc_data", "_bundled", "__phello__"} | {
    "site-packages",
    "dist-packages",
    "lib-dynload",
    "__pycache__",
}
# Tables written by a program; `_sysconfigdata` also holds the paths of the machine that built Python.
SKIPPED_PREFIXES = ("_sysconfigdata", "__phello__")
GENERATED_MARKS = ("gencodec.py", "decoding_table", "decoding_map")
MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Document:
    """One text. `path` is relative to the source, with "/"; `group` is its top-level module or package."""

    path: str
    text: str
    group: str


def standard_library(root: str = "") -> list[Document]:
    """The .py files of the standard library, or of the folder `root`, sorted by path.

    Raises UserError naming `data.source` when there is no such folder or it holds no Python source.
    """
    folder = Path(root) if root else Path(sysconfig.get_paths()["stdlib"])
    if not folder.is_dir():
        what = "no such folder" if root else "this Python carries no standard library source"
        raise UserError(f"data.source: {folder}: {what}; set data.source to a folder of .py files")
    documents = [document for path in _python_files(folder) if (document := _read(folder, path))]
    if not documents:
        raise UserError(f"data.source: {folder}: no .py files to learn from; set data.source to a folder of .py files")
    return documents


def split(documents: Iterable[Document], share: float = 0.05, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """(train, held out): about `share` of the groups are held out, whole, and never none of them.

    Raises UserError naming `data.source` when there is only one group, which cannot be divided.
    """
    documents = list(documents)
    places = {group: _place(group, seed) for group in sorted({document.group for document in documents})}
    if len(places) < 2:
        raise UserError("data.source: at least two top-level modules are needed, one of them to hold out")
    limit = max(share, min(places.values()))
    held = {group for group, place in places.items() if place <= limit}
    if len(held) == len(places):
        held = {min(places, key=lambda group: places[group])}
    train = [document for document in documents if document.group not in held]
    return train, [document for document in documents if document.group in held]


def _place(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()
    return math.ldexp(int.from_bytes(digest, "big"), -64)


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(SKIPPED_PREFIXES):
                yield Path(parent) / name


def _read(folder: Path, path: Path) -> Document | None:
    """The file as a document; None for empty files, other encodings and generated tables."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.strip() or len(raw) > MAX_FILE_BYTES or any(mark in text for mark in GENERATED_MARKS):
        return None
    relative = path.relative_to(folder)
    return Document(relative.as_posix(), text.replace("\r\n", "\n"), relative.parts[0].removesuffix(".py"))
