"""`arcforge env export` of software environments: made again from a manifest, measured again, written in the formats of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.checkouts import Checkouts, best_checkouts
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow, read_shard
from arcforge.envs.swe.builder.rebuild import clone_of, restore
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.exports.image import REPOSITORY, instance_id, write_context
from arcforge.envs.swe.exports.prepared import prepare
from arcforge.envs.swe.exports.repolaunch import repolaunch_result
from arcforge.envs.swe.exports.swebench import swebench_row

SWEBENCH, REPOLAUNCH = "swebench", "repolaunch"
FORMATS = {SWEBENCH: swebench_row, REPOLAUNCH: repolaunch_result}


def exported_environments(
    format: str, repo: Path | None, name: str, manifest: Path | None, out: Path, task: str = "",
    interpreter: Interpreter | None = None, checkouts: Checkouts | None = None,
) -> str:  # fmt: skip
    """A folder per environment of a shard with the context of its image, and out/swebench.jsonl or a result.json in each folder.
    Without `interpreter` the manifest's is installed in out/venv. UserError when there is nothing to export; an environment that
    cannot be is told in a line."""
    if format not in FORMATS:
        raise UserError(f"format {format!r}: software environments are written as {' or '.join(FORMATS)}")
    if manifest is None:
        raise UserError(
            f"format {format}: give the --manifest of its environments, the --name of one, and its clone with --repo"
        )
    environment, rows = read_shard(manifest, name)
    wanted = [row for row in rows if not task or row.task_id == task]
    if not wanted:
        raise UserError(f"{manifest}: no task {task!r} of {name}")
    clone = clone_of(environment, out / "releases", repo)
    with closing(checkouts or best_checkouts()) as used:
        suite = Suite(clone, interpreter or restore(environment, clone, out / "venv"), used)
        written, refused = _written(format, wanted, environment, suite, out)
    if not written:
        raise UserError(f"nothing was exported: {refused[0]}")
    if format == SWEBENCH:
        atomic_write(out / "swebench.jsonl", "".join(f"{json.dumps(row)}\n" for row in written))
    return "\n".join([f"{len(written)} of {len(wanted)} environments in {out}", *refused])


def _written(
    format: str, rows: Sequence[TaskRow], environment: EnvironmentRow, suite: Suite, out: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    written, refused = [], []
    for row in rows:
        folder = out / instance_id(row)
        try:
            prepared = prepare(row, environment, suite, folder / REPOSITORY)
            document = FORMATS[format](prepared)
        except Rejected as error:
            refused.append(f"{row.task_id}: {error.reason}: {error}")
            shutil.rmtree(folder, ignore_errors=True)
            continue
        write_context(prepared, folder)
        if format == REPOLAUNCH:
            atomic_write(folder / "result.json", json.dumps(document, indent=1) + "\n")
        written.append(document)
    return written, refused
