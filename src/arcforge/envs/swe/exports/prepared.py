"""An environment made again from its row and measured again: what every format is written from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.checkouts import Checkout, Checkouts
from arcforge.envs.swe.builder.clone import run_git
from arcforge.envs.swe.builder.detection import detect, import_roots
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow
from arcforge.envs.swe.builder.mining import find_commit, patches
from arcforge.envs.swe.builder.patches import touched
from arcforge.envs.swe.builder.rebuild import Built, build, validate
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.logs.parse import parse
from arcforge.envs.swe.logs.reading import Outcome


@dataclass(frozen=True)
class Prepared:
    """head: the only commit of what the agent gets. broken: patch that made its tree of the project's commit, if any. version: of
    the project. packaged: pip can install it. roots: folders, relative,
    that it is imported from. generated: files that a build writes beside the sources and that the
    tree lacks. gold: what pytest printed with the solution.
    now: outcomes of the tests that are in the agent's tree, without it. restored, removed: test paths that the agent's
    tree has, and that it has not; the hidden tests write both."""

    built: Built
    environment: EnvironmentRow
    head: str
    broken: bytes
    version: str
    packaged: bool
    roots: tuple[str, ...]
    generated: tuple[tuple[str, str], ...]
    pass_to_pass: tuple[str, ...]
    gold: str
    now: Mapping[str, Outcome]
    restored: tuple[str, ...]
    removed: tuple[str, ...]


def prepare(row: TaskRow, environment: EnvironmentRow, suite: Suite, directory: Path) -> Prepared:
    """Build the row's environment in an empty directory and measure it. Rejected when it is not in Python, has no FAIL_TO_PASS, which
    any patch would resolve, or does not measure as published; UserError when the directory is not empty."""
    if row.language != "python":
        raise Rejected("language", f"{row.language}: environments are exported of Python alone")
    if not row.fail_to_pass:
        raise Rejected("no_fail_to_pass", "FAIL_TO_PASS is empty: any patch would resolve it")
    recording = _Recording(suite.checkouts)
    suite = replace(suite, checkouts=recording)
    clone = suite.clone
    built = build(row, clone, directory)
    measured = validate(row, suite)
    before, gold_patch = patches(clone, row)
    with suite.tree(row.base) as tree:
        suite.run(tree, [before, gold_patch], row.tests)
        gold = recording.last.stdout
        needs, roots = detect(tree), import_roots(tree)
    present = set(clone.paths(row.base))
    whole = row.source == "commit"
    hidden = {*row.tests, *(touched(find_commit(clone, row.commit), layout_of(row.language))["test"] if whole else ())}
    return Prepared(
        built, environment, run_git(["rev-parse", "HEAD"], cwd=directory).decode().strip(), b"" if whole else before,
        clone.version(row.base), needs.packaged, roots, tuple(suite.setup.absent(directory)), measured.pass_to_pass, gold,
        _now(built, suite, recording, [test for test in row.tests if test in present]),
        tuple(sorted(hidden & present)), tuple(sorted(hidden - present)),
    )  # fmt: skip


def _now(built: Built, suite: Suite, recording: _Recording, tests: Sequence[str]) -> Mapping[str, Outcome]:
    """Nothing where the agent's tree has none of the test files yet."""
    if not tests:
        return {}
    suite.run(built.directory, (), tests)
    return parse("pytest", recording.last.stdout, recording.last.exit_code)


class _Recording:
    """Checkouts that keep what the last command said."""

    def __init__(self, checkouts: Checkouts) -> None:
        self._checkouts, self.name = checkouts, checkouts.name
        self.last = ExecResult(exit_code=0, stdout="", stderr="")

    @contextmanager
    def open(self, tree: Path, readable: Sequence[Path] = ()) -> Iterator[Checkout]:
        with self._checkouts.open(tree, readable) as checkout:
            yield _Recorded(self, checkout)

    def built(
        self, tree: Path, readable: Sequence[Path], argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[None]:
        return self._checkouts.built(tree, readable, argv, environment, timeout)

    def close(self) -> None:
        self._checkouts.close()


class _Recorded:
    def __init__(self, recording: _Recording, checkout: Checkout) -> None:
        self._recording, self._checkout = recording, checkout
        self.root, self.private = checkout.root, checkout.private
        self.apply, self.write, self.read = checkout.apply, checkout.write, checkout.read

    def run(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> ExecResult:
        self._recording.last = self._checkout.run(argv, environment, timeout)
        return self._recording.last
