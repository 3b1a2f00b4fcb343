"""Which changed paths are source, tests or neither, and the two patches of a commit."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from arcforge.envs.swe.builder.clone import Clone, Commit

Side = Literal["source", "test", "other"]

TEST_FOLDERS = frozenset({"test", "tests"})
OTHER_FOLDERS = frozenset(
    {"doc", "docs", "example", "examples", "benchmark", "benchmarks", "bench", "news", "changelog.d", "changelog"}
)
OTHER_SUFFIXES = frozenset({".md", ".rst", ".txt", ".yml", ".yaml", ".toml", ".cfg", ".ini", ".lock", ".in"})
OTHER_NAMES = frozenset({"setup.py", "noxfile.py", "conf.py", "LICENSE", "Makefile", "CHANGES", "CHANGELOG", "AUTHORS"})
_NOTES = re.compile(r"(changes|changelog|history|news|release[-_]?notes)(\.(md|rst|txt))?", re.I)
MOST_NOTES = 60  # lines
_TEST_FILE = re.compile(r"test_[^/]*\.py|[^/]*_test\.py|tests?\.py")


@dataclass(frozen=True)
class Pair:
    """A commit taken apart. gold: its source part; test: its test part; tests: test files that it adds or changes."""

    gold: bytes
    test: bytes
    tests: tuple[str, ...]
    source_paths: tuple[str, ...]


def side(path: str) -> Side:
    """Where a path belongs. Documentation, packaging and continuous integration are neither source nor tests."""
    place = PurePosixPath(path)
    folders = [part.lower() for part in place.parts[:-1]]
    in_tests = TEST_FOLDERS & set(folders) or folders[:1] == ["testing"]
    if in_tests or is_test_file(path) or place.name == "conftest.py":
        return "test"
    if any(part.startswith(".") for part in place.parts) or OTHER_FOLDERS & set(folders):
        return "other"
    top = len(place.parts) == 1
    if place.name in OTHER_NAMES or (top and place.suffix != ".py") or place.suffix in OTHER_SUFFIXES:
        return "other"
    return "source"


def is_test_file(path: str) -> bool:
    """Whether pytest would collect it by the usual names."""
    return _TEST_FILE.fullmatch(PurePosixPath(path).name) is not None


def touched(commit: Commit) -> dict[Side, list[str]]:
    """Changed paths by side."""
    found: dict[Side, list[str]] = {"source": [], "test": [], "other": []}
    for change in commit.changes:
        found[side(change.path)].append(change.path)
    return found


def tests_of(commit: Commit) -> list[str]:
    """Test files that a commit adds or changes."""
    return [c.path for c in commit.changes if c.status != "D" and side(c.path) == "test" and is_test_file(c.path)]


def take_apart(clone: Clone, commit: Commit) -> Pair:
    """The commit's source patch and test patch, and the test files to run (those that still exist after it)."""
    paths = touched(commit)
    return Pair(
        gold=clone.patch(commit.parent, commit.sha, paths["source"]),
        test=clone.patch(commit.parent, commit.sha, paths["test"]),
        tests=tuple(sorted(tests_of(commit))),
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
