"""Unified diffs of texts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from arcforge.core.protocols import FileChange


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Unified diff of two snapshots (relative path -> text), as `patch -p1` and `git apply` read it; empty when nothing changed."""
    parts: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        old, new = before.get(path), after.get(path)
        names = (f"a/{path}" if old is not None else "/dev/null", f"b/{path}" if new is not None else "/dev/null")
        for line in difflib.unified_diff(_lines(old), _lines(new), *names):
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def diff_of(changes: Iterable[FileChange]) -> str:
    """The changes of files as far as they are text."""
    changes = [change for change in changes if not change.link]
    before = {change.path: change.before for change in changes if change.before is not None}
    return diff(before, {change.path: change.after for change in changes if change.after is not None})


def _lines(text: str | None) -> list[str]:
    pieces = (text or "").split("\n")
    return [f"{piece}\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
