"""A directory as a Sandbox sees it: reads, writes and lists inside it, never outside."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Generic, Self, TypeVar

from arcforge.core.errors import SandboxError
from arcforge.core.protocols import FileChange
from arcforge.sandbox.unified import diff_of

FILE_CAP = 1 << 20
SKIPPED = frozenset({".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".pytest_cache", ".ruff_cache"})


Box = TypeVar("Box", bound="Folder")


class Folder:
    """The file half of a sandbox.

    A path that leaves the directory (also through a link) raises PermissionError, a missing one FileNotFoundError, text
    that is not UTF-8 UnicodeDecodeError: those are mistakes of the caller. A directory that is gone raises SandboxError.
    """

    def __init__(self, root: Path, source: Path | None = None) -> None:
        """source: what changes are told against; an empty directory if not given."""
        self.root, self.source = root.resolve(), source

    def like(self, root: Path) -> Self:
        """A sandbox of the same kind over another directory."""
        return type(self)(root, self.source)

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
        if found.exists() and not found.is_file() and not found.is_dir():  # a pipe would be waited for, without end
            raise OSError(errno.EINVAL, "not a regular file", path)
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

    async def changes(self) -> list[FileChange]:
        before, after = read_texts(self.source) if self.source else {}, read_texts(self.root)
        found = []
        for path in sorted(before.keys() | after.keys()):
            if before.get(path) != after.get(path):
                mode = (self.root / path).stat().st_mode & 0o7777 if path in after else 0
                found.append(
                    FileChange(
                        path=path,
                        kind="added" if path not in before else "changed" if path in after else "removed",
                        before=before.get(path),
                        after=after.get(path),
                        mode_after=mode,
                    )
                )
        return found

    async def diff(self) -> str:
        return diff_of(await self.changes())

    async def snapshot(self) -> FolderSnapshot[Self]:
        return FolderSnapshot(self)

    async def fork(self) -> Self:
        return self.like(copy_directory(self.root, self.root.parent, skipped=()))

    async def kill(self) -> None:
        """Nothing is left to kill: every command's process group ends with it."""

    async def stats(self) -> dict[str, float]:
        files = (path.lstat() for path in self.root.rglob("*"))
        return {"disk_bytes": float(sum(state.st_blocks * 512 for state in files))}

    async def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _check(self) -> None:
        if not self.root.is_dir():
            raise SandboxError(f"{self.root}: the sandbox directory is gone")


class FolderSnapshot(Generic[Box]):
    """A copy of a sandbox's directory. Implements core.protocols.Snapshot."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._copy = copy_directory(box.root, box.root.parent, skipped=())

    async def create(self) -> Box:
        return self._box.like(copy_directory(self._copy, self._copy.parent, skipped=()))

    async def drop(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)


def new_directory(files: Mapping[str, str] | None = None, parent: Path | None = None) -> Path:
    """A fresh directory holding `files` (relative path -> text), a temporary one where no parent is given.

    SandboxError when the disk says no."""
    try:
        root = Path(tempfile.mkdtemp(prefix="arcforge-", dir=parent)).resolve()
        for path, text in (files or {}).items():
            target = root / path
            if "/" in path:
                target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except OSError as error:
        raise SandboxError(f"cannot make a sandbox directory: {error}") from error
    return root


def copy_directory(source: Path, parent: Path | None = None, skipped: Collection[str] = SKIPPED) -> Path:
    """A temporary copy of `source` without version control, caches and dependency folders; links stay links."""
    root = new_directory(parent=parent)
    left_out = set(skipped)
    try:
        shutil.copytree(source, root, symlinks=True, dirs_exist_ok=True, ignore=lambda _, names: left_out & set(names))
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


def own_work(changes: Iterable[FileChange]) -> list[FileChange]:
    """Without what changes by itself or is fetched: version control, caches, dependency folders."""
    return [change for change in changes if not SKIPPED.intersection(PurePosixPath(change.path).parts)]
