"""One repository through the whole factory: install, find candidates, measure them in parallel, leave nothing uncounted."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from arcforge.core.messages import Value
from arcforge.core.metrics import JsonLines, Progress
from arcforge.core.protocols import Completer
from arcforge.core.runs import RunFolder, atomic_write, read_jsonl
from arcforge.envs.swe.builder.bugs import Bug, choose
from arcforge.envs.swe.builder.checkouts import Checkouts, best_checkouts
from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.interpreter import Interpreter, install
from arcforge.envs.swe.builder.manifest import TaskRow, environment_row, shard_name, write_shard
from arcforge.envs.swe.builder.mining import (
    GoldRuns,
    Part,
    Task,
    bug_name,
    measure_bug,
    measure_commit,
    measure_part,
    part_name,
    parts,
    sift,
)
from arcforge.envs.swe.builder.patches import is_test_file, side
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.releases import Release
from arcforge.envs.swe.builder.setup_agent import set_up
from arcforge.envs.swe.builder.suite import Entered, Suite
from arcforge.envs.swe.builder.yields import VALID, Yield, count_outcomes

TRIED = 5  # test files that tell whether an interpreter will do


class BuildSettings(Value):
    """commits: how many of the newest are looked at. bugs: how many are injected. workers: suites at a time. seconds: at
    most for one run of chosen test files, suite_seconds for one of the whole suite. budget: stop starting new ones after so
    many seconds (0: none). seed: of the choice of bugs.
    """

    commits: int = 1000
    bugs: int = 200
    workers: int = 1
    seconds: float = 120.0
    suite_seconds: float = 900.0
    budget: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """name: the same in every call, for resuming. measure: Rejected or a task."""

    name: str
    source: str
    measure: Callable[[], Task]


def build_repository(
    path: Path, repository: str, folder: Path, settings: BuildSettings,
    interpreter: Interpreter | None = None, checkouts: Checkouts | None = None, python: Path | None = None,
    releases: Sequence[Release] = (), completer: Callable[[], Completer] | None = None,
) -> Yield:  # fmt: skip
    """Mine the clone at `path`, called `repository` (owner/name), into `folder`; call again to go on where it ended.

    Leaves `results.jsonl` (a row per candidate, with every test name) and the shard of the valid ones in `folder/manifest`.
    releases: what the clone is made of, if it is (builder.releases). Without `interpreter` one is installed beside the results
    with `python`, as a model says where rules do not find out how (completer: a new one for each question); that this fails is
    counted too. UserError for a bad clone or name.
    """
    started = time.monotonic()
    clone, shard = Clone(path), shard_name(repository)
    place = RunFolder(folder / shard).create().lock()
    head = clone.head()
    outcomes: list[str] = []
    with Ledger(place.path / "results.jsonl") as ledger, ExitStack() as opened:
        if checkouts is None:
            checkouts = best_checkouts()
            opened.callback(checkouts.close)
        interpreter = interpreter or _installed(clone, head, place.path / "venv", python, ledger, checkouts, completer)
        installed = time.monotonic()
        commits = clone.commits(settings.commits, head)
        taken, sifted = sift(commits)
        if interpreter:
            source = _Source(Suite(clone, interpreter, checkouts, settings.seconds), repository, opened)
            candidates = [source.commit(commit) for commit in taken]
            candidates += [part for commit in commits for part in source.parts(commit)]
            candidates += source.bugs(head, settings, place.path / "entered.json", ledger)
            outcomes = _measure_all(repository, candidates, ledger, settings)
            described = environment_row(repository, interpreter.commit or head, interpreter, releases)
            write_shard(folder / "manifest", described, valid_rows(ledger.rows()))
        rows = ledger.rows()
    return Yield(
        repository=repository, outcomes=count_outcomes(rows), sifted=dict(sifted.most_common()),
        measured=len(outcomes), valid=outcomes.count(VALID), install_seconds=installed - started,
        seconds=time.monotonic() - installed,
    )  # fmt: skip


class Ledger:
    """The append-only `results.jsonl`: {candidate, source, outcome, seconds} and for valid ones {task, pass_to_pass, flaky},
    for the others {detail}. Open until the block ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Ledger:
        self._lines = JsonLines(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def rows(self) -> list[dict[str, Any]]:
        """The last row of every candidate."""
        return list({row["candidate"]: row for row in read_jsonl(self.path)}.values())

    def write(self, row: dict[str, Any]) -> None:
        self._lines.write(row)

    def write_failure(self, source: str, head: str, error: Rejected) -> None:
        """What stops a whole repository ("install") or all its bugs ("suite")."""
        row = {"candidate": f"{source}/{head}", "source": source, "outcome": error.reason, "detail": str(error)}
        self.write(row)


def valid_rows(rows: Sequence[dict[str, Any]]) -> list[TaskRow]:
    """The manifest rows among a ledger's."""
    return [TaskRow.model_validate(row["task"]) for row in rows if row["outcome"] == VALID]


def _installed(
    clone: Clone, head: str, folder: Path, python: Path | None, ledger: Ledger, checkouts: Checkouts,
    completer: Callable[[], Completer] | None,
) -> Interpreter | None:  # fmt: skip
    """None when pip does not manage; the ledger then says why."""

    def trial(interpreter: Interpreter) -> str:
        suite = Suite(clone, interpreter, checkouts)
        tests = _test_files(clone, head)[:TRIED]
        try:
            with suite.tree(head) as tree:
                return "" if suite.run(tree, (), tests).passed else f"no test of {', '.join(tests)} passes"
        except Rejected as error:
            return str(error)

    try:
        if completer is None or (folder / "interpreter.json").exists():
            return install(clone, head, folder, python)
        return set_up(clone, head, folder, python, trial, completer)
    except Rejected as error:
        ledger.write_failure("install", head, error)
        return None


def _test_files(clone: Clone, commit: str) -> list[str]:
    return [path for path in clone.paths(commit) if side(path) == "test" and is_test_file(path)]


@dataclass(frozen=True)
class _Source:
    """Candidates of a repository. opened: what ends with the factory's run."""

    suite: Suite
    repository: str
    opened: ExitStack

    def commit(self, commit: Commit) -> Candidate:
        return Candidate(f"commit/{commit.sha}", "commit", lambda: measure_commit(self.suite, self.repository, commit))

    def parts(self, commit: Commit) -> list[Candidate]:
        found = parts(self.suite.clone, commit)
        golds = GoldRuns(self.suite, commit.sha, len(found))
        self.opened.callback(golds.close)
        return [self._part(commit, part, golds) for part in found]

    def _part(self, commit: Commit, part: Part, golds: GoldRuns) -> Candidate:
        def measured() -> Task:
            try:
                return measure_part(self.suite, self.repository, commit, part, golds)
            finally:
                golds.leave()

        return Candidate(f"part/{part_name(commit.sha, part)}", "part", measured)

    def bugs(self, head: str, settings: BuildSettings, cache: Path, ledger: Ledger) -> list[Candidate]:
        """None when the whole suite does not run; the ledger then says why."""
        if not settings.bugs:
            return []
        golds = GoldRuns(self.suite, head)
        self.opened.callback(golds.close)
        try:
            entered = _entered(replace(self.suite, seconds=settings.suite_seconds), golds.tree, head, cache)
        except Rejected as error:
            ledger.write_failure("suite", head, error)
            return []
        rng = random.Random(f"bugs/{settings.seed}/{head}")
        base = (head, self.suite.clone.time(head))
        chosen = choose(self.suite.clone, head, entered, settings.bugs, rng)
        return [self._bug(base, bug, tests, golds) for bug, tests in chosen]

    def _bug(self, base: tuple[str, int], bug: Bug, tests: tuple[str, ...], golds: GoldRuns) -> Candidate:
        name = f"bug/{bug_name(base[0], bug)}"
        return Candidate(name, "bug", lambda: measure_bug(self.suite, self.repository, base, bug, tests, golds))


def _entered(suite: Suite, tree: Path, head: str, cache: Path) -> Entered:
    """Which functions every passing test enters, from the cache if it is of this commit."""
    if cache.exists() and (held := json.loads(cache.read_text()))["commit"] == head:
        return {test: [(path, line) for path, line in places] for test, places in held["entered"].items()}
    run, entered = suite.entered(tree, _test_files(suite.clone, head))
    entered = {test: places for test, places in entered.items() if test in run.passed}
    atomic_write(cache, json.dumps({"commit": head, "entered": entered}))
    return entered


def _measure_all(
    repository: str, candidates: Sequence[Candidate], ledger: Ledger, settings: BuildSettings
) -> list[str]:
    """Measure what the ledger does not hold yet, `workers` at a time; the outcomes of this call.

    Threads, because the work is done by the suites' processes.
    """
    done = {row["candidate"] for row in ledger.rows()}
    left = iter([candidate for candidate in candidates if candidate.name not in done])
    known = sum(candidate.name in done for candidate in candidates)
    progress = Progress(repository, len(candidates), "candidate", known)
    ends = time.monotonic() + settings.budget if settings.budget else math.inf
    outcomes: list[str] = []
    with ThreadPoolExecutor(settings.workers) as pool:
        running = {pool.submit(_measure, candidate) for candidate in islice(left, settings.workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                row = future.result()
                ledger.write(row)
                outcomes.append(row["outcome"])
                progress.update(valid=str(outcomes.count(VALID)))
            fresh = islice(left, len(finished)) if time.monotonic() < ends else ()
            running |= {pool.submit(_measure, candidate) for candidate in fresh}
    progress.close()
    return outcomes


def _measure(candidate: Candidate) -> dict[str, Any]:
    """A ledger row, whatever came out. Broken machinery (SandboxError) is not an outcome and goes up."""
    started = time.monotonic()
    row: dict[str, Any] = {"candidate": candidate.name, "source": candidate.source}
    try:
        task = candidate.measure()
        row |= {"outcome": VALID, "task": task.row.model_dump(exclude_none=True)}
        row |= {"pass_to_pass": task.measured.pass_to_pass, "flaky": task.measured.flaky}
    except Rejected as error:
        row |= {"outcome": error.reason, "detail": str(error)}
    return row | {"seconds": round(time.monotonic() - started, 3)}
