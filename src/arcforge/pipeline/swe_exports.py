"""`arcforge env export` of software environments: made again from a manifest, measured again, written in the formats of others."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.checkouts import Checkouts, best_checkouts
from arcforge.envs.swe.builder.interpreter import Interpreter
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow, read_shard
from arcforge.envs.swe.builder.rebuild import clone_of, restore
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.exports.harbor import harbor_task
from arcforge.envs.swe.exports.image import REPOSITORY, instance_id, write_context
from arcforge.envs.swe.exports.prepared import Prepared, prepare
from arcforge.envs.swe.exports.repolaunch import repolaunch_result
from arcforge.envs.swe.exports.swebench import swebench_row
from arcforge.envs.terminal.harbor import write_task

Writer = Callable[[Prepared, Path, Path], str]


def _write_swebench(prepared: Prepared, context: Path, out: Path) -> str:
    """A line of swebench.jsonl."""
    row = swebench_row(prepared)
    _placed(prepared, context, out / instance_id(prepared.built.row))
    return json.dumps(row) + "\n"


def _write_repolaunch(prepared: Prepared, context: Path, out: Path) -> str:
    document, folder = repolaunch_result(prepared), out / instance_id(prepared.built.row)
    _placed(prepared, context, folder)
    atomic_write(folder / "result.json", json.dumps(document, indent=1) + "\n")
    return ""


def _write_harbor(prepared: Prepared, context: Path, out: Path) -> str:
    _placed(prepared, context, write_task(harbor_task(prepared), out) / "environment")
    return ""


def _placed(prepared: Prepared, context: Path, folder: Path) -> None:
    """The image's context, which holds the repository, completed and moved to where it belongs."""
    write_context(prepared, context)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(context, folder)


SWEBENCH = "swebench"
FORMATS: dict[str, Writer] = {SWEBENCH: _write_swebench, "repolaunch": _write_repolaunch, "harbor": _write_harbor}


def exported_environments(
    format: str, repo: Path | None, name: str, manifest: Path | None, out: Path, task: str = "",
    interpreter: Interpreter | None = None, checkouts: Checkouts | None = None,
) -> str:  # fmt: skip
    """A folder per environment of a shard: the context of its image, and out/swebench.jsonl or a result.json in each; or a task of
    Harbor's. Without `interpreter` the manifest's is installed in out/venv. UserError when there is nothing to export; an environment that
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
        atomic_write(out / "swebench.jsonl", "".join(written))
    return "\n".join([f"{len(written)} of {len(wanted)} environments in {out}", *refused])


def _written(
    format: str, rows: Sequence[TaskRow], environment: EnvironmentRow, suite: Suite, out: Path
) -> tuple[list[str], list[str]]:
    """(what each that was written says, a line for each that was not)."""
    out.mkdir(parents=True, exist_ok=True)
    written, refused = [], []
    for row in rows:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as scratch:
            context = Path(scratch) / "context"
            try:
                prepared = prepare(row, environment, suite, context / REPOSITORY)
                written.append(FORMATS[format](prepared, context, out))
            except Rejected as error:
                refused.append(f"{row.task_id}: {error.reason}: {error}")
    return written, refused
