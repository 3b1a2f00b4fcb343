"""Candidates from a repository, a commit or a bug each, and how one becomes a measured task."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from arcforge.envs.swe.builder.bugs import Bug, bug_patches
from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.manifest import TaskRow
from arcforge.envs.swe.builder.measurement import REPEATS, Measured, measure, names_sha256
from arcforge.envs.swe.builder.patches import changed_lines, is_test_file, sha256, side, take_apart, touched
from arcforge.envs.swe.builder.pytest_log import SuiteRun
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.statements import from_message, task_type
from arcforge.envs.swe.builder.suite import Suite

MOST_SOURCE_FILES = 10
MOST_TEST_FILES = 8
MOST_LINES = 500  # changed by the solution
LARGEST_FAILING_SHARE = 0.5  # of a bug's tests: more is no bug but a wreck
# A bug that makes its tests loop is noticed by how long the unharmed tree takes.
SLOWER, SPARE_SECONDS = 4, 10


@dataclass(frozen=True)
class Task:
    """A measured task with the names that its row holds by their hash only."""

    row: TaskRow
    measured: Measured


def sift(commits: Sequence[Commit]) -> tuple[list[Commit], Counter[str]]:
    """Commits worth measuring, in order, and how many of the others fell to which rule."""
    taken, reasons = [], Counter[str]()
    for commit in commits:
        if reason := _unfit(commit):
            reasons[reason] += 1
        else:
            taken.append(commit)
    return taken, reasons


def _unfit(commit: Commit) -> str:
    """Why a commit is no candidate, from its message and the paths it changes; empty if it is one."""
    paths = touched(commit)
    tests = [c.path for c in commit.changes if c.status != "D" and side(c.path) == "test" and is_test_file(c.path)]
    if not any(path.endswith(".py") for path in paths["source"]):
        return "no_source"
    if not tests:
        return "no_tests"
    if len(paths["source"]) > MOST_SOURCE_FILES or len(tests) > MOST_TEST_FILES:
        return "too_many_files"
    return "" if from_message(commit.message) else "message"


def measure_commit(suite: Suite, repository: str, commit: Commit) -> Task:
    """The commit's parent as base; with the commit's tests alone some must fail, with its source too all must be well.

    Rejected otherwise. Each state runs twice, each time in a fresh checkout.
    """
    pair = take_apart(suite.clone, commit)
    lines = changed_lines(pair.gold)
    if lines > MOST_LINES:
        raise Rejected("too_many_lines", f"{lines}")
    measured = measure(
        gold=lambda: suite.run(commit.parent, [pair.test, pair.gold], pair.tests),
        before=lambda: suite.run(commit.parent, [pair.test], pair.tests),
    )
    row = TaskRow(
        task_id=f"{repository}/commit/{commit.sha[:12]}", source="commit", type=task_type(commit.message),
        repository=repository, base=commit.parent, commit=commit.sha, time=commit.time, tests=pair.tests,
        gold_sha256=sha256(pair.gold), before_sha256=sha256(pair.test), changed_lines=lines, **_lists(measured),
    )  # fmt: skip
    return Task(row, measured)


@dataclass(frozen=True)
class Gold:
    """Runs of the unharmed tree, and the longest of them in seconds."""

    runs: list[SuiteRun]
    seconds: float


@dataclass
class GoldRuns:
    """Gold, shared by all bugs that use the same test files."""

    suite: Suite
    commit: str
    _known: dict[tuple[str, ...], Gold | Rejected] = field(default_factory=dict)
    _locks: dict[tuple[str, ...], threading.Lock] = field(default_factory=dict)

    def of(self, tests: tuple[str, ...]) -> Gold:
        """REPEATS runs, made once; that they are rejected is remembered too."""
        with self._locks.setdefault(tests, threading.Lock()):
            if tests not in self._known:
                self._known[tests] = self._run(tests)
        found = self._known[tests]
        if isinstance(found, Rejected):
            raise found
        return found

    def _run(self, tests: tuple[str, ...]) -> Gold | Rejected:
        runs, longest = [], 0.0
        try:
            for _ in range(REPEATS):
                started = time.monotonic()
                runs.append(self.suite.run(self.commit, (), tests))
                longest = max(longest, time.monotonic() - started)
        except Rejected as error:
            return error
        return Gold(runs, longest)


def measure_bug(
    suite: Suite, repository: str, base: tuple[str, int], bug: Bug, tests: tuple[str, ...], golds: GoldRuns
) -> Task:
    """`base`: commit and its time. Rejected when no test notices the bug, or more than half of them do."""
    commit, made = base
    broken, mended = bug_patches(suite.clone, commit, bug)
    gold = golds.of(tests)
    runs = iter(gold.runs)
    patient = replace(suite, seconds=min(suite.seconds, SPARE_SECONDS + SLOWER * gold.seconds))
    measured = measure(gold=lambda: next(runs), before=lambda: patient.run(commit, [broken], tests))
    failing, passing = len(measured.fail_to_pass), len(measured.pass_to_pass)
    if failing > LARGEST_FAILING_SHARE * (failing + passing):
        raise Rejected("too_destructive", f"{failing} of {failing + passing}")
    row = TaskRow(
        task_id=f"{repository}/bug/{bug_name(commit, bug)}", source="bug", type="bug fix", repository=repository,
        base=commit, commit=commit, time=made, bug=bug, tests=tests, gold_sha256=sha256(mended),
        before_sha256=sha256(broken), changed_lines=changed_lines(mended), **_lists(measured),
    )  # fmt: skip
    return Task(row, measured)


def bug_name(commit: str, bug: Bug) -> str:
    return hashlib.sha256(f"{commit}\n{bug.path}\n{bug.kind}\n{bug.number}".encode()).hexdigest()[:12]


def patches(clone: Clone, row: TaskRow) -> tuple[bytes, bytes]:
    """(before, gold) of a row, made again from a clone. Rejected("patch_changed") when they are not the published ones."""
    if row.bug is not None:
        before, gold = bug_patches(clone, row.base, row.bug)
    else:
        pair = take_apart(clone, find_commit(clone, row.commit))
        before, gold = pair.test, pair.gold
    if (sha256(before), sha256(gold)) != (row.before_sha256, row.gold_sha256):
        raise Rejected("patch_changed", f"{row.task_id}: the patches are not those of the manifest")
    return before, gold


def find_commit(clone: Clone, sha: str) -> Commit:
    found = clone.commits(1, sha)
    if not found or found[0].sha != sha:
        raise Rejected("git", f"{sha}: not a commit with one parent")
    return found[0]


def _lists(measured: Measured) -> dict[str, Any]:
    return {
        "fail_to_pass": measured.fail_to_pass,
        "pass_to_pass": len(measured.pass_to_pass),
        "pass_to_pass_sha256": names_sha256(measured.pass_to_pass),
    }
