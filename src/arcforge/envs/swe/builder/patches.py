"""What a commit changes, by side, and its two patches."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.layout import Layout, Side

_NOTES = re.compile(r"(changes|changelog|history|news|release[-_]?notes)(\.(md|rst|txt))?", re.I)
MOST_NOTES = 60  # lines


@dataclass(frozen=True)
class Pair:
    """A commit taken apart. gold: its source part; test: its test part; tests: test files that it adds or changes."""

    gold: bytes
    test: bytes
    tests: tuple[str, ...]
    source_paths: tuple[str, ...]


def touched(commit: Commit, layout: Layout) -> dict[Side, list[str]]:
    """Changed paths by side."""
    found: dict[Side, list[str]] = {"source": [], "test": [], "other": []}
    for change in commit.changes:
        found[layout.side(change.path)].append(change.path)
    return found


def tests_of(commit: Commit, layout: Layout) -> list[str]:
    """Test files that a commit adds or changes."""
    present = [change.path for change in commit.changes if change.status != "D"]
    return [path for path in present if layout.side(path) == "test" and layout.is_test_file(path)]


def take_apart(clone: Clone, commit: Commit, layout: Layout) -> Pair:
    """The commit's source patch and test patch, and the test files to run (those that still exist after it)."""
    paths = touched(commit, layout)
    return Pair(
        gold=clone.patch(commit.parent, commit.sha, paths["source"]),
        test=clone.patch(commit.parent, commit.sha, paths["test"]),
        tests=tuple(sorted(tests_of(commit, layout))),
        source_paths=tuple(sorted(paths["source"])),
    )


def release_notes(clone: Clone, commit: Commit) -> str:
    """What a commit adds to the project's list of changes; empty when it has none."""
    paths = [c.path for c in commit.changes if c.status != "D" and _NOTES.fullmatch(PurePosixPath(c.path).name)]
    lines = [line for path in paths for line in added_lines(clone.patch(commit.parent, commit.sha, [path]))]
    return "\n".join(lines[:MOST_NOTES]).strip()


def added_lines(patch: bytes) -> list[str]:
    return [line[1:] for line in _lines(patch) if line.startswith("+") and not line.startswith("+++ ")]


def changed_lines(patch: bytes) -> int:
    """Added and removed lines."""
    return sum(line[:1] in ("+", "-") and line[:4] not in ("+++ ", "--- ") for line in _lines(patch))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lines(patch: bytes) -> list[str]:
    return patch.decode(errors="replace").split("\n")
