"""What is published of an environment: facts alone. Anyone with a clone, or the project's releases, builds and measures it again.

A shard per repository: `<owner>+<name>.environment.json` and `<owner>+<name>.jsonl` (`.jsonl.zst` when large), one task a line.
No line of anybody's code stands in it: patches are named by commit or by file, kind and number, and held by their sha256.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import zstandard
from pydantic import ValidationError

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.archives import Release
from arcforge.envs.swe.builder.bugs import Bug
from arcforge.envs.swe.builder.setup import Setup
from arcforge.envs.swe.builder.statements import TaskType

LARGE = 256 << 10  # bytes of a shard before it is compressed


class EnvironmentRow(Value):
    """What a repository's tests run in. commit: the one whose dependencies were resolved. python: full version, of Python's.
    requirements: exact versions, of pip (name==version), of npm (node_modules/PATH NAME@VERSION HASH) or of Debian
    (debian:NAME=VERSION). options: pytest's, or what was found out about the suite. variables: NAME=VALUE that the
    suite asks for. releases: what the repository is made of, oldest
    first, where it is no clone but a project's releases."""

    repository: str
    commit: str
    language: str = "python"
    python: str = ""
    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    releases: tuple[Release, ...] = ()


class TaskRow(Value):
    """One environment. source: a whole commit, one source file's part of a commit (of it one
    function's, where `function` names it), or an injected bug. base: commit of the tree
    that an agent gets; commit: where its solution comes from (the same but for whole commits). tests: the test files that are
    run. before_sha256: of the patch that lies on `base` without the solution (the commit's test part, the part taken back, or the
    bug); gold_sha256: of the solution; both over the patch's bytes. pass_to_pass: how many, held by measurement.names_sha256
    over their names. changed_lines: of the solution. time: of the commit, in seconds.
    """

    task_id: str
    source: Literal["commit", "part", "bug"]
    type: TaskType
    repository: str
    language: str = "python"
    base: str
    commit: str
    time: int
    part: str | None = None
    function: str | None = None
    bug: Bug | None = None
    tests: tuple[str, ...]
    gold_sha256: str
    before_sha256: str
    changed_lines: int
    fail_to_pass: tuple[str, ...]
    pass_to_pass: int
    pass_to_pass_sha256: str


def shard_name(repository: str) -> str:
    """`owner/name` as a file name. UserError for anything else."""
    parts = repository.split("/")
    if len(parts) != 2 or not all(part and part.strip(".") and "+" not in part for part in parts):
        raise UserError(f"{repository!r}: name the repository as owner/name")
    return "+".join(parts)


def environment_row(repository: str, commit: str, setup: Setup, releases: Iterable[Release] = ()) -> EnvironmentRow:
    return EnvironmentRow(
        repository=repository, commit=commit, language=setup.language, python=setup.version,
        requirements=setup.requirements, options=setup.options, variables=setup.variables, releases=tuple(releases),
    )  # fmt: skip


def write_shard(folder: Path, environment: EnvironmentRow, rows: Iterable[TaskRow]) -> Path:
    """Write a repository's shard; the older one is replaced. Returns the file of the tasks."""
    name = shard_name(environment.repository)
    lines = sorted(row.model_dump_json(exclude_defaults=True) for row in rows)
    data = "".join(f"{line}\n" for line in lines).encode()
    plain, packed = folder / f"{name}.jsonl", folder / f"{name}.jsonl.zst"
    atomic_write(folder / f"{name}.environment.json", json.dumps(environment.model_dump(), indent=1) + "\n")
    target, other = (packed, plain) if len(data) > LARGE else (plain, packed)
    atomic_write(target, zstandard.ZstdCompressor(level=19).compress(data) if target == packed else data)
    other.unlink(missing_ok=True)
    return target


def read_shard(folder: Path, repository: str) -> tuple[EnvironmentRow, list[TaskRow]]:
    """UserError names the file and the line that is not as it should be."""
    name = shard_name(repository)
    described = folder / f"{name}.environment.json"
    path = next((p for p in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.zst") if p.exists()), None)
    if path is None or not described.exists():
        raise UserError(f"{folder}: no shard of {repository} here")
    data = path.read_bytes()
    try:
        text = (zstandard.ZstdDecompressor().decompress(data) if path.suffix == ".zst" else data).decode()
        environment = EnvironmentRow.model_validate_json(described.read_bytes())
    except (zstandard.ZstdError, ValueError) as error:
        raise UserError(f"{path}: the shard cannot be read: {str(error).splitlines()[0]}") from None
    return environment, [_row(path, number, line) for number, line in enumerate(text.splitlines(), 1)]


def _row(path: Path, number: int, line: str) -> TaskRow:
    try:
        return TaskRow.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
