"""What an overlay's upper directory says: files added, changed and removed against the layers below it. Standard library only.

An upper directory holds what was written inside a sandbox, so nothing here follows a link of it: every name is looked at through
its directory's descriptor. A character device 0/0 hides what lies below it; a directory marked opaque hides all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from arcforge.sandbox.kernel import open_beneath

TEXT_CAP = 1 << 20
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Change:
    """One path that differs. kind: "added" | "changed" | "removed". before, after: the text, None where there is none or it is
    no UTF-8 text of at most TEXT_CAP bytes, of a link where it leads; mode_after: of the file now."""

    path: str
    kind: str
    before: str | None
    after: str | None
    mode_after: int = 0
    link: bool = False


def changes(upper: str, lowers: Sequence[str]) -> list[Change]:
    """What `upper` changes in `lowers` (topmost first): files and links; directories only through what is in them. Sorted."""
    found: dict[str, Change] = {}
    with _opened([upper]) as uppers, _opened(lowers) as layers:
        _compare(uppers[0], layers, "", found)
    return [replace(found[path], path=_readable(path)) for path in sorted(found)]


def _readable(path: str) -> str:
    """Names need not be UTF-8; what is told of them is."""
    return os.fsencode(path).decode(errors="replace")


def _compare(above: int, below: list[int], prefix: str, found: dict[str, Change]) -> None:
    old = _listing(below)
    if _is_opaque(above):
        for name, layer in old.items():
            if not _exists(above, name):
                _removed(layer, below, prefix, name, found)
        old = {}
    for name in os.listdir(above):
        state = os.stat(name, dir_fd=above, follow_symlinks=False)
        if _is_whiteout(state):
            if name in old:
                _removed(old[name], below, prefix, name, found)
        elif stat.S_ISDIR(state.st_mode):
            if name in old and not _is_directory(old[name], name):
                _removed(old[name], below, prefix, name, found)
            with _inside(above, name) as inner, _all_inside(below if name in old else [], name) as inner_below:
                _compare(inner, inner_below, f"{prefix}{name}/", found)
        else:
            _written(above, name, state, old.get(name), below, prefix, found)


def _written(
    above: int,
    name: str,
    state: os.stat_result,
    layer: int | None,
    below: list[int],
    prefix: str,
    found: dict[str, Change],
) -> None:
    """A file, link or other node in the upper directory."""
    if layer is not None and _is_directory(layer, name):
        _removed(layer, below, prefix, name, found)
        layer = None
    after, before = _text(above, name), None if layer is None else _text(layer, name)
    if layer is not None and before is not None and before == after:
        old = os.stat(name, dir_fd=layer, follow_symlinks=False)
        if old.st_mode == state.st_mode:
            return  # copied up, not changed
    kind = "added" if layer is None else "changed"
    found[prefix + name] = Change(
        prefix + name, kind, before, after, stat.S_IMODE(state.st_mode), stat.S_ISLNK(state.st_mode)
    )


def _removed(layer: int, below: list[int], prefix: str, name: str, found: dict[str, Change]) -> None:
    """Everything at `name` in the layers below is gone."""
    if not _is_directory(layer, name):
        found[prefix + name] = Change(prefix + name, "removed", _text(layer, name), None)
        return
    with _all_inside(below, name) as inner:
        for child, where in _listing(inner).items():
            _removed(where, inner, f"{prefix}{name}/", child, found)


def _listing(layers: list[int]) -> dict[str, int]:
    """Name -> the topmost layer that has it, of one directory as it is seen through its layers."""
    seen: dict[str, int | None] = {}
    for layer in layers:
        for name in os.listdir(layer):
            if name not in seen:
                seen[name] = None if _is_whiteout(os.stat(name, dir_fd=layer, follow_symlinks=False)) else layer
        if _is_opaque(layer):
            break
    return {name: layer for name, layer in seen.items() if layer is not None}


def _text(directory: int, name: str) -> str | None:
    """A link reads as where it leads; anything but a link or a file of text as None."""
    state = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(state.st_mode):
        return _readable(os.readlink(name, dir_fd=directory))
    if not stat.S_ISREG(state.st_mode) or state.st_size > TEXT_CAP:
        return None
    with open(open_beneath(name, os.O_RDONLY | os.O_NONBLOCK, directory), "rb") as file:
        raw = file.read(TEXT_CAP + 1)
    with suppress(UnicodeDecodeError):
        return raw.decode()
    return None


def _is_whiteout(state: os.stat_result) -> bool:
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    for name in _OPAQUE:
        with suppress(OSError):
            if os.getxattr(directory, name) == b"y":
                return True
    return False


def _is_directory(layer: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=layer, follow_symlinks=False).st_mode)


def _exists(directory: int, name: str) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        return True
    return False


@contextmanager
def _opened(paths: Sequence[str]) -> Iterator[list[int]]:
    opened: list[int] = []
    try:
        for path in paths:
            opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def _inside(directory: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _all_inside(layers: list[int], name: str) -> Iterator[list[int]]:
    """The directory `name` of each layer that shows through: down to the first that hides the rest."""
    opened: list[int] = []
    try:
        for layer in layers:
            try:
                opened.append(os.open(name, _DIRECTORY, dir_fd=layer))
            except FileNotFoundError:
                continue
            except OSError:  # a file, a link or a whiteout hides what lies below
                break
            if _is_opaque(opened[-1]):
                break
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)
