"""From a manifest's row and a clone back to the environment, and whether it still measures as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.core.metrics import Progress
from arcforge.envs.swe.builder.clone import Clone, apply, commit_everything
from arcforge.envs.swe.builder.interpreter import install
from arcforge.envs.swe.builder.languages.registry import INSTALLERS
from arcforge.envs.swe.builder.layout import layout_of
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow
from arcforge.envs.swe.builder.measurement import Measured, measure, names_sha256
from arcforge.envs.swe.builder.mining import find_commit, patches
from arcforge.envs.swe.builder.patches import release_notes, touched
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.releases import assemble, source_of
from arcforge.envs.swe.builder.setup import Setup
from arcforge.envs.swe.builder.statements import broken_statement, commit_statement, required_names
from arcforge.envs.swe.builder.suite import Suite

AGREES = "agrees"


@dataclass(frozen=True)
class Built:
    """An environment on disk. directory: what an agent gets, a repository of one commit. hidden: patch with the tests that
    grade it (empty for a part or a bug, whose tests are in the tree); gold: the solution. Neither may be shown to the agent.
    """

    row: TaskRow
    directory: Path
    statement: str
    hidden: bytes
    gold: bytes


def clone_of(environment: EnvironmentRow, folder: Path, repo: Path | None = None, index: str = "") -> Clone:
    """A shard's repository: the clone at `repo`, or its releases, from `index` or their public address, assembled in `folder`.

    UserError for neither."""
    if repo is not None:
        return Clone(repo)
    return Clone(assemble(*source_of(environment.repository, index), environment.releases, folder))


def restore(
    row: EnvironmentRow, clone: Clone, folder: Path, python: Path | None = None, pip: Sequence[str] = ()
) -> Setup:
    """What a shard's tests run in, with its exact versions, in `folder`. python and pip: the program and more options, of Python's.

    UserError for another Python than x.y of the row, and for a toolchain that this machine lacks.
    """
    if row.language != "python":
        setup = INSTALLERS[row.language](clone, row.commit, folder, row.requirements)
        return replace(setup, variables=row.variables)
    interpreter = install(clone, row.commit, folder, python, row.requirements, pip)
    wanted = row.python.rsplit(".", 1)[0]
    if interpreter.version.rsplit(".", 1)[0] != wanted:
        raise UserError(f"{row.repository}: measured with Python {wanted}, this is {interpreter.version}; name another")
    return interpreter


def build(row: TaskRow, clone: Clone, directory: Path) -> Built:
    """Recreate a row's environment in an empty directory, without running anything.

    UserError when the directory is not empty; Rejected when the clone lacks the commit or gives other patches.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise UserError(f"{directory}: not empty; name a new folder for the environment")
    before, gold = patches(clone, row)
    clone.export(row.base, directory)
    if row.source == "commit":
        hidden, statement = before, _statement(clone, row, before, gold)
    else:
        apply(directory, before)
        notes = release_notes(clone, find_commit(clone, row.commit)) if row.source == "part" else ""
        hidden, statement = b"", broken_statement(directory, row.fail_to_pass, notes)
    commit_everything(directory, "base")
    return Built(row, directory, statement, hidden, gold)


def _statement(clone: Clone, row: TaskRow, before: bytes, gold: bytes) -> str:
    commit = find_commit(clone, row.commit)
    present = set(clone.paths(row.base))
    source = "\n".join(
        clone.text(row.base, path) for path in touched(commit, layout_of(row.language))["source"] if path in present
    )
    return commit_statement(commit.message, required_names(before, gold, source))


def validate(row: TaskRow, suite: Suite) -> Measured:
    """Measure a row again, both states twice. Rejected("differs") when its tests are not the published ones."""
    before, gold = patches(suite.clone, row)
    with suite.tree(row.base) as tree:
        measured = measure(
            gold=lambda: suite.run(tree, [before, gold], row.tests),
            before=lambda: suite.run(tree, [before], row.tests),
        )
    if measured.fail_to_pass != row.fail_to_pass:
        raise Rejected("differs", f"{row.task_id}: other tests fail before and pass after")
    if names_sha256(measured.pass_to_pass) != row.pass_to_pass_sha256:
        raise Rejected("differs", f"{row.task_id}: other tests pass before and after")
    return measured


class Agreement(Value):
    """outcomes: "agrees" and the reasons of rows that do not, counted."""

    rows: int
    outcomes: dict[str, int]

    @property
    def share(self) -> float:
        return self.outcomes.get(AGREES, 0) / self.rows if self.rows else 0.0


def validate_rows(rows: Sequence[TaskRow], suite: Suite, workers: int = 1) -> Agreement:
    """Measure rows again and count how many come out as published."""
    progress = Progress("validate", len(rows), "environment")
    outcomes: Counter[str] = Counter()
    with ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(lambda row: _outcome(lambda: validate(row, suite)), rows):
            outcomes[outcome] += 1
            progress.update(agrees=str(outcomes[AGREES]))
    progress.close()
    return Agreement(rows=len(rows), outcomes=dict(outcomes.most_common()))


def _outcome(measured: Callable[[], Measured]) -> str:
    try:
        measured()
    except Rejected as error:
        return error.reason
    return AGREES
