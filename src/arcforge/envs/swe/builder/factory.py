"""One repository through the whole factory: install, find candidates, measure them in parallel, leave nothing uncounted."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from arcforge.core.messages import Value
from arcforge.core.metrics import JsonLines, Progress
from arcforge.core.protocols import Completer
from arcforge.core.runs import RunFolder, atomic_write, read_jsonl
from arcforge.envs.swe.builder.archives import Release
from arcforge.envs.swe.builder.broken import Broken, GoldRuns, broken_by_bug, broken_part, measure_together
from arcforge.envs.swe.builder.bugs import Chosen, choose
from arcforge.envs.swe.builder.checkouts import Checkouts, best_checkouts
from arcforge.envs.swe.builder.clone import Clone, Commit
from arcforge.envs.swe.builder.interpreter import install
from arcforge.envs.swe.builder.languages.registry import INSTALLERS
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.manifest import TaskRow, environment_row, shard_name, write_shard
from arcforge.envs.swe.builder.mining import (
    Part,
    Task,
    bug_name,
    file_parts,
    function_parts,
    measure_commit,
    part_name,
    sift,
)
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.setup import Setup
from arcforge.envs.swe.builder.setup_agent import set_up
from arcforge.envs.swe.builder.suite import Entered, Suite
from arcforge.envs.swe.builder.yields import VALID, Yield, count_outcomes

TOGETHER = 24  # bugs or parts that share checkouts, and rows that a kill may lose
# Outcomes of a file's part after which its functions are worth a try: some test may speak of the file.
NOTICED = frozenset(
    {VALID, "too_destructive", "no_pass_to_pass", "too_many_lines", "does_not_build", "suite_did_not_run"}
)
Cases = Mapping[str, Callable[[], Broken]]
"""By candidate."""
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


Row = dict[str, Any]
"""Of the ledger."""


@dataclass(frozen=True)
class Work:
    """Candidates measured one after another: `measure` gets the ledger's rows of before by candidate, gives the rows of those that
    have none, some at a time.

    candidates: how many there are at least."""

    candidates: int
    measure: Callable[[Mapping[str, Row]], Iterator[list[Row]]]


def build_repository(
    path: Path, repository: str, folder: Path, settings: BuildSettings,
    setup: Setup | None = None, checkouts: Checkouts | None = None, python: Path | None = None,
    releases: Sequence[Release] = (), completer: Callable[[], Completer] | None = None, language: str = "python",
    variables: Sequence[str] = (),
) -> Yield:  # fmt: skip
    """Mine the clone at `path`, called `repository` (owner/name), into `folder`; call again to go on where it ended.

    Leaves `results.jsonl` (a row per candidate, with every test name) and the shard of the valid ones in `folder/manifest`.
    releases: what the clone is made of, if it is (builder.releases). Without `setup` what `language` needs is installed beside the
    results; for Python with `python`, as a model says where rules do not find out how (completer: a new one for each question);
    that this fails is counted too. variables: NAME=VALUE that a suite asks for, where the language is another. Bugs are injected into
    Python alone. UserError for a bad clone or name.
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
        if setup is None:
            wanted = _Wanted(clone, head, place.path / "venv", language, python, tuple(variables))
            setup = _installed(wanted, ledger, checkouts, completer)
        layout = layout_of(setup.language if setup else language)
        installed = time.monotonic()
        commits = clone.commits(settings.commits, head)
        taken, sifted = sift(commits, layout)
        if setup:
            source = _Source(Suite(clone, setup, checkouts, settings.seconds), repository, opened)
            mined = [source.commit(commit) for commit in taken]
            mined += [work for commit in commits for work in source.parts(commit)]
            python_only = setup.language == "python"
            injected = source.bugs(head, settings, place.path / "entered.json", ledger) if python_only else []
            # By turns, so that a budget that ends early has some of each.
            work = [one for pair in zip_longest(mined, injected) for one in pair if one]
            outcomes = _measure_all(repository, work, ledger, settings)
            described = environment_row(repository, setup.commit or head, setup, releases)
            write_shard(folder / "manifest", described, valid_rows(ledger.rows(), clone))
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


def valid_rows(rows: Sequence[dict[str, Any]], clone: Clone) -> list[TaskRow]:
    """The manifest rows among a ledger's. Those of commits that the clone no longer has are left out: a project's newest releases
    are another history when there is one more of them."""
    held = clone.shas()
    found = (TaskRow.model_validate(row["task"]) for row in rows if row["outcome"] == VALID)
    return [row for row in found if row.base in held and row.commit in held]


@dataclass(frozen=True)
class _Wanted:
    """What to install for."""

    clone: Clone
    head: str
    folder: Path
    language: str
    python: Path | None
    variables: tuple[str, ...]


def _installed(
    wanted: _Wanted, ledger: Ledger, checkouts: Checkouts, completer: Callable[[], Completer] | None
) -> Setup | None:
    """None when that does not manage; the ledger then says why."""

    def trial(setup: Setup) -> str:
        suite = Suite(wanted.clone, setup, checkouts)
        tests = _test_files(wanted.clone, wanted.head)[:TRIED]
        try:
            with suite.tree(wanted.head) as tree:
                return "" if suite.run(tree, (), tests).passed else f"no test of {', '.join(tests)} passes"
        except Rejected as error:
            return str(error)

    try:
        if wanted.language != "python":
            setup = INSTALLERS[wanted.language](wanted.clone, wanted.head, wanted.folder, None)
            return replace(setup, variables=wanted.variables)
        if completer is None or (wanted.folder / "interpreter.json").exists():
            return install(wanted.clone, wanted.head, wanted.folder, wanted.python)
        return set_up(wanted.clone, wanted.head, wanted.folder, wanted.python, trial, completer)
    except Rejected as error:
        ledger.write_failure("install", wanted.head, error)
        return None


def _test_files(clone: Clone, commit: str) -> list[str]:
    """Of a project in Python."""
    layout = layout_of("python")
    return [path for path in clone.paths(commit) if layout.side(path) == "test" and layout.is_test_file(path)]


@dataclass(frozen=True)
class _Source:
    """Work of a repository. opened: what ends with the factory's run."""

    suite: Suite
    repository: str
    opened: ExitStack

    def commit(self, commit: Commit) -> Work:
        name = f"commit/{commit.sha}"

        def measured(known: Mapping[str, Row]) -> Iterator[list[Row]]:
            if name in known:
                return
            started = time.monotonic()
            outcome = _attempt(lambda: measure_commit(self.suite, self.repository, commit))
            yield [_row(name, outcome, time.monotonic() - started)]

        return Work(1, measured)

    def parts(self, commit: Commit) -> list[Work]:
        """Files first; functions of those that a test speaks of. In Python all of a commit together, else file by file."""
        language = self.suite.setup.language
        files = file_parts(commit, layout_of(language))
        golds = GoldRuns(self.suite, commit.sha)
        self.opened.callback(golds.close)  # should a budget leave some of it out
        shares = [files] if language == "python" else [[part] for part in files]
        left = list(shares)

        def measured(share: Sequence[Part], known: Mapping[str, Row]) -> Iterator[list[Row]]:
            outcomes = {name: row["outcome"] for name, row in known.items()}
            try:
                for rows in self._together(known, self._part_cases(commit, share, golds), golds):
                    outcomes.update({row["candidate"]: row["outcome"] for row in rows})
                    yield rows
                noticed = [part for part in share if outcomes[_part(commit, part)] in NOTICED]
                functions = [
                    one for part in noticed for one in function_parts(self.suite.clone, commit, part.path, language)
                ]
                yield from self._together(known, self._part_cases(commit, functions, golds), golds)
            finally:
                left.pop()
                if not left:
                    golds.close()

        return [Work(len(share), partial(measured, share)) for share in shares if share]

    def _part_cases(self, commit: Commit, parts: Sequence[Part], golds: GoldRuns) -> Cases:
        clone, repository = self.suite.clone, self.repository
        return {_part(commit, part): partial(broken_part, clone, repository, commit, part, golds) for part in parts}

    def bugs(self, head: str, settings: BuildSettings, cache: Path, ledger: Ledger) -> list[Work]:
        """None when the whole suite does not run; the ledger then says why."""
        if not settings.bugs:
            return []
        golds = GoldRuns(self.suite, head)
        self.opened.callback(golds.close)
        try:
            entered = _entered(self.suite.within(settings.suite_seconds), golds.tree, head, cache)
        except Rejected as error:
            ledger.write_failure("suite", head, error)
            return []
        rng = random.Random(f"bugs/{settings.seed}/{head}")
        base = (head, self.suite.clone.time(head))
        chosen = sorted(choose(self.suite.clone, head, entered, settings.bugs, rng), key=lambda pair: pair[1])
        return [self._bugs(base, chosen[start : start + TOGETHER], golds) for start in range(0, len(chosen), TOGETHER)]

    def _bugs(self, base: tuple[str, int], chosen: Sequence[Chosen], golds: GoldRuns) -> Work:
        clone, repository = self.suite.clone, self.repository
        cases: Cases = {
            f"bug/{bug_name(base[0], bug)}": partial(broken_by_bug, clone, repository, base, bug, tests)
            for bug, tests in chosen
        }
        return Work(len(cases), lambda known: self._together(known, cases, golds))

    def _together(self, known: Mapping[str, Row], cases: Cases, golds: GoldRuns) -> Iterator[list[Row]]:
        """Rows of the cases that are not known yet, each with its share of the seconds."""
        missing = [name for name in cases if name not in known]
        for start in range(0, len(missing), TOGETHER):
            started = time.monotonic()
            made = {name: _attempt(cases[name]) for name in missing[start : start + TOGETHER]}
            whole = {name: case for name, case in made.items() if isinstance(case, Broken)}
            outcomes: dict[str, Any] = dict(made) | dict(zip(whole, measure_together(list(whole.values()), golds)))
            share = (time.monotonic() - started) / len(made)
            yield [_row(name, outcome, share) for name, outcome in outcomes.items()]


Result = TypeVar("Result")


def _attempt(call: Callable[[], Result]) -> Result | Rejected:
    """Broken machinery (SandboxError) is not an outcome and goes up."""
    try:
        return call()
    except Rejected as error:
        return error


def _part(commit: Commit, part: Part) -> str:
    return f"part/{part_name(commit.sha, part)}"


def _entered(suite: Suite, tree: Path, head: str, cache: Path) -> Entered:
    """Which functions every passing test enters, from the cache if it is of this commit."""
    if cache.exists() and (held := json.loads(cache.read_text()))["commit"] == head:
        return {test: [(path, line) for path, line in places] for test, places in held["entered"].items()}
    run, entered = suite.entered(tree, _test_files(suite.clone, head))
    entered = {test: places for test, places in entered.items() if test in run.passed}
    atomic_write(cache, json.dumps({"commit": head, "entered": entered}))
    return entered


def _measure_all(repository: str, work: Sequence[Work], ledger: Ledger, settings: BuildSettings) -> list[str]:
    """Do what the ledger does not hold yet, `workers` at a time; the outcomes of this call.

    Threads, because most is done by the suites' processes.
    """
    known = {row["candidate"]: row for row in ledger.rows()}
    progress = Progress(repository, max(sum(one.candidates for one in work), len(known)), "candidate", len(known))
    ends = time.monotonic() + settings.budget if settings.budget else math.inf
    outcomes: list[str] = []
    one_at_a_time = threading.Lock()

    def measure(one: Work) -> None:
        for rows in one.measure(known):
            with one_at_a_time:
                for row in rows:
                    ledger.write(row)
                    outcomes.append(row["outcome"])
                    progress.update(valid=str(outcomes.count(VALID)))
            if time.monotonic() > ends:
                return

    left = iter(work)
    with ThreadPoolExecutor(settings.workers) as pool:
        running = {pool.submit(measure, one) for one in islice(left, settings.workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            fresh = islice(left, len(finished)) if time.monotonic() < ends else ()
            running |= {pool.submit(measure, one) for one in fresh}
    progress.close()
    return outcomes


def _row(name: str, outcome: Task | Rejected, seconds: float) -> Row:
    """A ledger row, whatever came out."""
    row: Row = {"candidate": name, "source": name.split("/")[0]}
    if isinstance(outcome, Rejected):
        row |= {"outcome": outcome.reason, "detail": str(outcome)}
    else:
        row |= {"outcome": VALID, "task": outcome.row.model_dump(exclude_defaults=True)}
        row |= {"pass_to_pass": outcome.measured.pass_to_pass, "flaky": outcome.measured.flaky}
    return row | {"seconds": round(seconds, 3)}
