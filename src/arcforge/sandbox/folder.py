"""A directory as a Sandbox sees it: reads, writes and lists inside it, never outside."""

from __future__ import annotations

import difflib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from arcforge.core.errors import SandboxError

FILE_CAP = 1 << 20
SKIPPED = frozenset({".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".pytest_cache", ".ruff_cache"})


class Folder:
    """The file half of a sandbox.

    A path that leaves the directory (also through a link) raises PermissionError, a missing one FileNotFoundError, text
    that is not UTF-8 UnicodeDecodeError: those are mistakes of the caller. A directory that is gone raises SandboxError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def resolve(self, path: str) -> Path:
        found = Path(os.path.realpath(self.root / path))
        if not found.is_relative_to(self.root):
            raise PermissionError(errno.EACCES, "outside the sandbox", path)
        return found

    async def read(self, path: str) -> str:
        self._check()
        found = self.resolve(path)
        if found.is_file() and found.stat().st_size > FILE_CAP:
            raise OSError(errno.EFBIG, "larger than 1 MiB", path)
        return found.read_text("utf-8")

    async def write(self, path: str, text: str) -> None:
        self._check()
        raw = text.encode()
        if len(raw) > FILE_CAP:
            raise OSError(errno.EFBIG, "larger than 1 MiB", path)
        found = self.resolve(path)
        found.parent.mkdir(parents=True, exist_ok=True)
        found.write_bytes(raw)

    async def files(self) -> list[str]:
        """Relative paths, sorted; version control, caches and dependency folders are left out, links not followed."""
        self._check()
        found: list[str] = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if name not in SKIPPED]
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in names]
        return sorted(found)

    async def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _check(self) -> None:
        if not self.root.is_dir():
            raise SandboxError(f"{self.root}: the sandbox directory is gone")


def new_directory(files: Mapping[str, str] | None = None) -> Path:
    """A fresh temporary directory holding `files` (relative path -> text). SandboxError when the disk says no."""
    try:
        root = Path(tempfile.mkdtemp(prefix="arcforge-"))
        for path, text in (files or {}).items():
            target = root / path
            if "/" in path:
                target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except OSError as error:
        raise SandboxError(f"cannot make a sandbox directory: {error}") from error
    return root


def copy_directory(source: Path) -> Path:
    """A temporary copy of `source` without version control, caches and dependency folders; links stay links."""
    root = new_directory()
    try:
        shutil.copytree(source, root, symlinks=True, dirs_exist_ok=True, ignore=lambda _, names: SKIPPED & set(names))
    except (OSError, shutil.Error) as error:
        shutil.rmtree(root, ignore_errors=True)
        raise SandboxError(f"cannot copy {source}: {error}") from error
    return root


def read_texts(root: Path) -> dict[str, str]:
    """Relative path -> text of every UTF-8 file up to 1 MiB below `root`: a snapshot to diff against."""
    texts: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for path in (Path(folder, name) for name in names):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > FILE_CAP:
                continue
            try:
                texts[path.relative_to(root).as_posix()] = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
    return texts


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Unified diff of two snapshots, as `patch -p1` and `git apply` read it; empty when nothing changed."""
    parts: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        old, new = before.get(path), after.get(path)
        names = (f"a/{path}" if old is not None else "/dev/null", f"b/{path}" if new is not None else "/dev/null")
        for line in difflib.unified_diff(_lines(old), _lines(new), *names):
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def _lines(text: str | None) -> list[str]:
    pieces = (text or "").split("\n")
    return [f"{piece}\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
