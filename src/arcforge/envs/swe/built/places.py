"""From a manifest's row to what an episode needs, kept in a cache: the repository's Python, the agent's tree, the graders' tree and the
names of the tests, measured once on this machine and held against the manifest."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.errors import TaskError, UserError
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.checkouts import Checkouts, best_checkouts
from arcforge.envs.swe.builder.clone import Clone, apply
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow, read_shard, shard_name
from arcforge.envs.swe.builder.measurement import names_sha256
from arcforge.envs.swe.builder.mining import patches
from arcforge.envs.swe.builder.rebuild import build, clone_of, restore, validate
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite

TEST_SECONDS = 120.0


@dataclass(frozen=True)
class Place:
    """tree: what an agent gets, a repository of one commit. graded: the same with the task's own tests in it. gold: the solution, a
    patch to both. pass_to_pass: names of tests."""

    row: TaskRow
    tree: Path
    graded: Path
    statement: str
    gold: bytes
    pass_to_pass: tuple[str, ...]
    interpreter: Interpreter


class Places:
    """Prepares rows of a manifest's folder. Clones are looked for in its folder `clones` as OWNER+NAME; pypi/NAME needs none.
    Environments of Python alone: what an agent may plant in the others is not known here.

    Everything it makes lies in `cache` (default: ~/.cache/arcforge/swe) and is taken from there the next time.
    """

    def __init__(self, manifest: Path, cache: Path | None = None, index: str = "") -> None:
        """UserError: no manifest there."""
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.manifest, self.index = manifest, index
        self.cache = (cache or base / "arcforge" / "swe").resolve()
        self._shards = [
            read_shard(manifest, name.removesuffix(".environment.json").replace("+", "/", 1))
            for name in sorted(path.name for path in manifest.glob("*.environment.json"))
        ]
        if not self._shards:
            raise UserError(f"{manifest}: no manifest here; name a folder with OWNER+NAME.environment.json files")
        self._environments = {environment.repository: environment for environment, _ in self._shards}
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._checkouts: Checkouts | None = None
        self._prepared: dict[str, Place] = {}

    def rows(self) -> list[TaskRow]:
        """Of every shard of Python, in the order of their names."""
        return [row for environment, rows in self._shards if environment.language == "python" for row in rows]

    def close(self) -> None:
        if self._checkouts:
            self._checkouts.close()
            self._checkouts = None

    def prepare(self, row: TaskRow) -> Place:
        """Blocks: the first task of a repository installs its Python. TaskError: it cannot be made here, or does not measure as the
        manifest says."""
        if row.task_id in self._prepared:
            return self._prepared[row.task_id]
        try:
            with self._locks[row.repository]:
                clone, interpreter = self._repository(self._environments[row.repository])
            with self._locks[row.task_id]:
                place = self._prepared[row.task_id] = self._place(row, clone, interpreter)
                return place
        except (Rejected, UserError) as error:
            raise TaskError(f"{row.task_id}: {error}") from error

    def _repository(self, environment: EnvironmentRow) -> tuple[Clone, Interpreter]:
        name = shard_name(environment.repository)
        repo = self.manifest / "clones" / name
        clone = clone_of(environment, self.cache / name / "releases", repo if repo.exists() else None, self.index)
        setup = restore(environment, clone, self.cache / name / "venv")
        if not isinstance(setup, Interpreter):
            raise UserError(f"environments in {environment.language} are measured, not yet worked on")
        return clone, setup

    def _place(self, row: TaskRow, clone: Clone, interpreter: Interpreter) -> Place:
        folder = self.cache / shard_name(row.repository) / row.task_id.rpartition("/")[2]
        done, tree, graded = folder / "place.json", folder / "repository", folder / "graded"
        before, gold = patches(clone, row)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            built = build(row, clone, tree)
            graded.mkdir()
            clone.export(row.base, graded)
            apply(graded, before)
            for root in (tree, graded):
                for path, text in interpreter.absent(root):
                    (root / path).write_text(text, "utf-8")
            self._checkouts = self._checkouts or best_checkouts()
            names = validate(row, Suite(clone, interpreter, self._checkouts, TEST_SECONDS)).pass_to_pass
            atomic_write(done, json.dumps({"statement": built.statement, "pass_to_pass": names}) + "\n")
        held = json.loads(done.read_text())
        names = tuple(held["pass_to_pass"])
        if names_sha256(names) != row.pass_to_pass_sha256:
            raise TaskError(f"{row.task_id}: {done} is of another manifest; delete it")
        return Place(row, tree, graded, held["statement"], gold, names, interpreter)
