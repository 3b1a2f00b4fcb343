"""What the formats have in common: how an environment is called, the image that holds it, and the command that tests it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from arcforge.core.runs import atomic_write
from arcforge.envs.swe.builder.checkouts import FROZEN
from arcforge.envs.swe.builder.manifest import EnvironmentRow, TaskRow
from arcforge.envs.swe.builder.pytest_run import PYTEST
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.exports.prepared import Prepared

HOME = "/testbed"
"""Where both formats have the repository."""
GIT = f"git -c safe.directory={HOME}"
REPOSITORY, _GENERATED, _REQUIREMENTS = "repository", "generated", "requirements.txt"
SYSTEM = "apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*"


def instance_id(row: TaskRow) -> str:
    """owner__name-source-id: unique, and a file name."""
    return f"{row.repository.replace('/', '__')}-{row.source}-{row.task_id.rpartition('/')[2]}"


def image_name(row: TaskRow) -> str:
    """As SWE-bench calls images; it wants no double underscore in them."""
    return f"arcforge/sweb.eval.x86_64.{instance_id(row)}:latest".lower().replace("__", "_1776_")


def base_image(environment: EnvironmentRow) -> str:
    return f"python:{environment.python.rpartition('.')[0]}-slim"


def created_at(row: TaskRow) -> str:
    return datetime.fromtimestamp(row.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(patch: bytes) -> str:
    """Rejected for a patch that cannot stand in JSON."""
    try:
        return patch.decode()
    except UnicodeDecodeError:
        raise Rejected("patch", "a patch that is not UTF-8 cannot be exported") from None


def applied(patch: bytes) -> list[str]:
    """Lines of a shell script that apply a patch to the repository, none for an empty one."""
    if not patch:
        return []
    lines, mark = text(patch).removesuffix("\n").split("\n"), "EOF_ARCFORGE"
    while mark in lines:
        mark += "_"
    return [f"{GIT} apply --whitespace=nowarn - <<'{mark}'", *lines, mark]


def reset(prepared: Prepared) -> list[str]:
    """Lines of a shell script that put the repository's test files back, and remove those that the agent does not have."""
    restored = [f"{GIT} checkout HEAD -- {shlex.join(prepared.restored)}"] if prepared.restored else []
    return restored + ([f"rm -rf -- {shlex.join(prepared.removed)}"] if prepared.removed else [])


def variables(prepared: Prepared) -> dict[str, str]:
    """Of the tests' environment, as it was measured in."""
    roots = ":".join(HOME if root == "." else f"{HOME}/{root}" for root in prepared.roots)
    return {**FROZEN, "PYTHONPATH": roots}


def test_command(prepared: Prepared, tests: Sequence[str]) -> str:
    """For a shell whose working directory is the repository."""
    return shlex.join(["python", *PYTEST, *prepared.environment.options, *tests])


def install_commands(prepared: Prepared, requirements: str) -> list[str]:
    """What makes the base image the environment, once the repository is in HOME. requirements: pip's arguments for them."""
    commands = [f"pip install --no-cache-dir {requirements}"] if prepared.environment.requirements else []
    if prepared.packaged:  # from a copy: a build leaves files in its tree
        version = f"SETUPTOOLS_SCM_PRETEND_VERSION={prepared.version} PBR_VERSION={prepared.version}"
        commands.append(
            f"cp -r {HOME} /tmp/project && {version} pip install --no-cache-dir --no-deps /tmp/project && rm -rf /tmp/project"
        )
    return commands


def write_context(prepared: Prepared, folder: Path) -> None:
    """The Dockerfile of the environment and what it copies, beside the repository, which is there already."""
    lines = [f"FROM {base_image(prepared.environment)}", f"RUN {SYSTEM}", f"WORKDIR {HOME}"]
    lines += [f"ENV {name}={value}" for name, value in variables(prepared).items()]
    lines += [f"COPY {_REQUIREMENTS} /tmp/{_REQUIREMENTS}", f"COPY {REPOSITORY}/ {HOME}/"]
    for path, content in prepared.generated:
        atomic_write(folder / _GENERATED / path, content)
        lines.append(f"COPY {_GENERATED}/{path} {HOME}/{path}")
    lines += [f"RUN {command}" for command in install_commands(prepared, f"-r /tmp/{_REQUIREMENTS}")]
    atomic_write(folder / _REQUIREMENTS, "".join(f"{line}\n" for line in prepared.environment.requirements))
    atomic_write(folder / "Dockerfile", "\n".join(lines) + "\n")
