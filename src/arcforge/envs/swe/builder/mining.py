"""Candidates from a repository, a commit or a bug each, and how one becomes a measured task."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from arcforge.core.messages import Value
from arcforge.envs.swe.builder.bugs import Bug, bug_patches
from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.functions import functions_taken_back
from arcforge.envs.swe.builder.layout import Layout, layout_of, module
from arcforge.envs.swe.builder.manifest import TaskRow
from arcforge.envs.swe.builder.measurement import Measured, measure, test_lists
from arcforge.envs.swe.builder.patches import changed_lines, sha256, take_apart, tests_of, touched
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.statements import from_message, task_type
from arcforge.envs.swe.builder.suite import Suite
from arcforge.sandbox.unified import diff

MOST_SOURCE_FILES = 10
MOST_TEST_FILES = 8
MOST_LINES = 500  # changed by the solution
MOST_PARTS, MOST_FUNCTIONS = 24, 64  # files of one commit, functions of one file
PART_TEST_FILES = 4


@dataclass(frozen=True)
class Task:
    """A measured task with the names that its row holds by their hash only."""

    row: TaskRow
    measured: Measured


def sift(commits: Sequence[Commit], layout: Layout) -> tuple[list[Commit], Counter[str]]:
    """Commits worth measuring, in order, and how many of the others fell to which rule."""
    taken, reasons = [], Counter[str]()
    for commit in commits:
        if reason := _unfit(commit, layout):
            reasons[reason] += 1
        else:
            taken.append(commit)
    return taken, reasons


def _unfit(commit: Commit, layout: Layout) -> str:
    """Why a commit is no candidate, from its message and the paths it changes; empty if it is one."""
    paths, tests = touched(commit, layout), tests_of(commit, layout)
    if not any(layout.is_source(path) for path in paths["source"]):
        return "no_source"
    if not tests:
        return "no_tests"
    if len(paths["source"]) > MOST_SOURCE_FILES or len(tests) > MOST_TEST_FILES:
        return "too_many_files"
    return "" if from_message(commit.message) else "message"


class Part(Value):
    """What a commit does to one source file, or to one function in it (by its qualified name)."""

    path: str
    function: str | None = None


def file_parts(commit: Commit, layout: Layout) -> list[Part]:
    """Parts of a commit that is no candidate as a whole (a release, say), each of which may be one by itself: source files that it
    changes or adds, with tests changed beside them; those first whose tests bear their names."""
    if _unfit(commit, layout) not in ("too_many_files", "message"):
        return []
    tests = " ".join(PurePosixPath(path).stem for path in tests_of(commit, layout))
    written = {change.path for change in commit.changes if change.status in "AM" and layout.is_source(change.path)}
    paths = sorted(written & set(touched(commit, layout)["source"]), key=lambda path: (module(path) not in tests, path))
    return [Part(path=path) for path in paths[:MOST_PARTS]]


def function_parts(clone: Clone, commit: Commit, path: str, language: str) -> list[Part]:
    """Functions of a source file, where a commit changes or adds several."""
    found = functions_taken_back(language, *versions(clone, commit, path))
    return [Part(path=path, function=name) for name in list(found)[:MOST_FUNCTIONS]] if len(found) > 1 else []


def versions(clone: Clone, commit: Commit, path: str) -> tuple[str, str]:
    """A source file before a commit, empty if there was none, and after it."""
    is_new = any(change.path == path and change.status == "A" for change in commit.changes)
    return "" if is_new else clone.text(commit.parent, path), clone.text(commit.sha, path)


def measure_commit(suite: Suite, repository: str, commit: Commit) -> Task:
    """The commit's parent as base; with the commit's tests alone some must fail, with its source too all must be well.

    Rejected otherwise. Each state runs twice, each time in a fresh checkout.
    """
    language = suite.setup.language
    pair = take_apart(suite.clone, commit, layout_of(language))
    lines = changed_lines(pair.gold)
    if lines > MOST_LINES:
        raise Rejected("too_many_lines", f"{lines}")
    with suite.tree(commit.parent) as tree:
        measured = measure(
            gold=lambda: suite.run(tree, [pair.test, pair.gold], pair.tests),
            before=lambda: suite.run(tree, [pair.test], pair.tests),
        )
    row = TaskRow(
        task_id=f"{repository}/commit/{commit.sha[:12]}", source="commit", type=task_type(commit.message),
        repository=repository, language=language, base=commit.parent, commit=commit.sha, time=commit.time, tests=pair.tests,
        gold_sha256=sha256(pair.gold), before_sha256=sha256(pair.test), changed_lines=lines, **test_lists(measured),
    )  # fmt: skip
    return Task(row, measured)


def part_patches(clone: Clone, commit: Commit, part: Part, language: str) -> tuple[bytes, bytes]:
    """(the patch that takes a part of a commit back, the patch that makes it). Rejected when there is no such function."""
    if part.function is None:
        return clone.patch(commit.sha, commit.parent, [part.path]), clone.patch(commit.parent, commit.sha, [part.path])
    old, new = versions(clone, commit, part.path)
    without = functions_taken_back(language, old, new).get(part.function)
    if without is None:
        raise Rejected("no_such_function", f"{part.path}: {part.function} is not changed")
    right, broken = {part.path: new}, {part.path: without}
    return diff(right, broken).encode(), diff(broken, right).encode()


def part_tests(tree: Path, commit: Commit, path: str, layout: Layout) -> tuple[str, ...]:
    """The changed test files that speak most of a source file, by name and by text; none where only all can be run."""
    if layout.whole:
        return ()
    name = module(path)
    word = re.compile(rf"\b_*{re.escape(name)}\b")

    def rank(test: str) -> tuple[bool, int, str]:
        text = (tree / test).read_text("utf-8", errors="replace")
        return name not in PurePosixPath(test).stem, -len(word.findall(text)), test

    return tuple(sorted(sorted(tests_of(commit, layout), key=rank)[:PART_TEST_FILES]))


def part_name(commit: str, part: Part) -> str:
    named = f"{commit}\n{part.path}" + (f"\n{part.function}" if part.function else "")
    return hashlib.sha256(named.encode()).hexdigest()[:12]


def bug_name(commit: str, bug: Bug) -> str:
    return hashlib.sha256(f"{commit}\n{bug.path}\n{bug.kind}\n{bug.number}".encode()).hexdigest()[:12]


def patches(clone: Clone, row: TaskRow) -> tuple[bytes, bytes]:
    """(before, gold) of a row, made again from a clone. Rejected("patch_changed") when they are not the published ones."""
    if row.bug is not None:
        before, gold = bug_patches(clone, row.base, row.bug)
    elif row.part is not None:
        part = Part(path=row.part, function=row.function)
        before, gold = part_patches(clone, find_commit(clone, row.commit), part, row.language)
    else:
        pair = take_apart(clone, find_commit(clone, row.commit), layout_of(row.language))
        before, gold = pair.test, pair.gold
    if (sha256(before), sha256(gold)) != (row.before_sha256, row.gold_sha256):
        raise Rejected("patch_changed", f"{row.task_id}: the patches are not those of the manifest")
    return before, gold


def find_commit(clone: Clone, sha: str) -> Commit:
    found = clone.commits(1, sha)
    if not found or found[0].sha != sha:
        raise Rejected("git", f"{sha}: not a commit with one parent")
    return found[0]
