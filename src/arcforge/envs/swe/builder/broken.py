"""Trees with something broken, a bug or a part of a commit taken back: many of one commit measured together."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcforge.envs.swe.builder.batch import Batch, Ran, Variant
from arcforge.envs.swe.builder.bugs import Bug, bug_patches
from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.functions import same_code
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.manifest import TaskRow
from arcforge.envs.swe.builder.measurement import REPEATS, Measured, SuiteRun, compare, test_lists
from arcforge.envs.swe.builder.mining import (
    MOST_LINES,
    Part,
    Task,
    bug_name,
    part_name,
    part_patches,
    part_tests,
    versions,
)
from arcforge.envs.swe.builder.patches import changed_lines, sha256
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite

LARGEST_FAILING_SHARE = 0.5  # of a part's or bug's tests: more is no bug but a wreck
# A bug that makes its tests loop is noticed by how long the unharmed tree takes.
SLOWER, SPARE_SECONDS = 3, 3
BUILD_SPARE_SECONDS = 25  # instead, in languages that compile what was patched
Tests = tuple[str, ...]


@dataclass(frozen=True)
class Broken:
    """A commit's tree with `patch` on it, the tests that may notice, and the row it becomes (without what is measured)."""

    patch: bytes
    tests: Tests
    row: dict[str, Any]


def broken_by_bug(clone: Clone, repository: str, base: tuple[str, int], bug: Bug, tests: Tests) -> Broken:
    """`base`: commit and its time. Rejected when there is no such bug."""
    commit, made = base
    broken, mended = bug_patches(clone, commit, bug)
    row = {
        "task_id": f"{repository}/bug/{bug_name(commit, bug)}", "source": "bug", "type": "bug fix", "repository": repository,
        "base": commit, "commit": commit, "time": made, "bug": bug, "tests": tests, "gold_sha256": sha256(mended),
        "before_sha256": sha256(broken), "changed_lines": changed_lines(mended),
    }  # fmt: skip
    return Broken(broken, tests, row)


def broken_part(clone: Clone, repository: str, commit: Commit, part: Part, golds: GoldRuns) -> Broken:
    """A part of a commit, taken back; the rest of it stays. golds: of the commit. Rejected when it is too large, or no code."""
    language = golds.suite.setup.language
    broken, mended = part_patches(clone, commit, part, language)
    if (lines := changed_lines(mended)) > MOST_LINES:
        raise Rejected("too_many_lines", f"{lines}")
    if not part.function and same_code(language, *versions(clone, commit, part.path)):
        raise Rejected("no_code", "only documentation, annotations and the version change")
    tests = part_tests(golds.tree, commit, part.path, layout_of(language))
    row = {
        "task_id": f"{repository}/part/{part_name(commit.sha, part)}", "source": "part", "type": "other",
        "repository": repository, "language": language, "base": commit.sha, "commit": commit.sha, "time": commit.time,
        "part": part.path, "function": part.function, "tests": tests, "gold_sha256": sha256(mended), "before_sha256": sha256(broken),
        "changed_lines": lines,
    }  # fmt: skip
    return Broken(broken, tests, row)


@dataclass
class GoldRuns:
    """A commit as it is: its tree, there from the first use until close(), and what its tests give, run when first needed."""

    suite: Suite
    commit: str
    _known: dict[tuple[Tests, int], Ran] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: ExitStack = field(default_factory=ExitStack)
    _tree: Path | Rejected | None = None

    @property
    def tree(self) -> Path:
        """Rejected, once and for all, when it does not build."""
        with self._lock:
            if self._tree is None:
                try:
                    self._tree = self._opened.enter_context(self.suite.tree(self.commit))
                except Rejected as error:
                    self._tree = error
            if isinstance(self._tree, Rejected):
                raise self._tree
            return self._tree

    def close(self) -> None:
        self._opened.close()

    def run(self, batch: Batch, wanted: Iterable[Tests], repeat: int) -> None:
        """Make the repeat-th run of every set of test files that has none."""
        missing = [tests for tests in dict.fromkeys(wanted) if (tests, repeat) not in self._known]
        done = batch.run([Variant((), tests, self.suite.seconds) for tests in missing])
        self._known.update({(tests, repeat): ran for tests, ran in zip(missing, done)})

    def of(self, tests: Tests, repeat: int) -> SuiteRun:
        """Rejected when it did not run as it should; KeyError before run()."""
        return self._known[tests, repeat].run()

    def patience(self, tests: Tests) -> float:
        """Seconds that a run of a broken tree may take."""
        spare = SPARE_SECONDS if self.suite.setup.language == "python" else BUILD_SPARE_SECONDS
        return min(self.suite.seconds, spare + SLOWER * self._known[tests, 0].seconds)


def measure_together(cases: Sequence[Broken], golds: GoldRuns) -> list[Task | Rejected]:
    """Each case's task, or why it is none: no test notices it, or more than half of them do.

    Both states run REPEATS times, each time in another checkout; the first runs decide which cases are worth the others.
    """
    if not cases:
        return []
    befores: list[list[SuiteRun]] = [[] for _ in cases]
    outcomes: list[Measured | Rejected | None] = [None] * len(cases)
    for repeat in range(REPEATS):
        with Batch(golds.suite, golds.tree) as batch:
            golds.run(
                batch,
                [case.tests for case, outcome in zip(cases, outcomes) if not isinstance(outcome, Rejected)],
                repeat,
            )
            for index, outcome in enumerate(outcomes):
                if not isinstance(outcome, Rejected):
                    outcomes[index] = _refusal(golds, cases[index].tests, repeat)
            left = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, Rejected)]
            done = batch.run([_variant(cases[index], golds) for index in left])
        for index, ran in zip(left, done):
            outcomes[index] = _compared(cases[index].tests, golds, befores[index], ran)
    return [_task(case, outcome) for case, outcome in zip(cases, outcomes)]


def _variant(case: Broken, golds: GoldRuns) -> Variant:
    return Variant((case.patch,), case.tests, golds.patience(case.tests))


def _refusal(golds: GoldRuns, tests: Tests, repeat: int) -> Rejected | None:
    """Why nothing can be measured with these tests, from the tree as it is."""
    try:
        if not golds.of(tests, repeat).passed:
            return Rejected("gold_fails", "no test passes with the solution")
    except Rejected as error:
        dead = error.reason in ("suite_did_not_run", "does_not_build")
        return Rejected("gold_fails", str(error)) if dead else error
    return None


def _compared(tests: Tests, golds: GoldRuns, befores: list[SuiteRun], ran: Ran) -> Measured | Rejected:
    """What all runs so far agree on, this one, which is added to `befores`, among them."""
    try:
        befores.append(ran.run())
        return compare([golds.of(tests, repeat) for repeat in range(len(befores))], befores)
    except Rejected as error:
        return error


def _task(case: Broken, outcome: Measured | Rejected | None) -> Task | Rejected:
    assert outcome is not None
    if isinstance(outcome, Rejected):
        return outcome
    failing, passing = len(outcome.fail_to_pass), len(outcome.pass_to_pass)
    if failing > LARGEST_FAILING_SHARE * (failing + passing):
        return Rejected("too_destructive", f"{failing} of {failing + passing}")
    return Task(TaskRow.model_validate(case.row | test_lists(outcome)), outcome)
