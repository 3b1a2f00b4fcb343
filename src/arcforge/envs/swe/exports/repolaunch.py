"""RepoLaunch's result.json: how a repository's environment is set up, tested and read, as its second step leaves it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.releases import SOURCES
from arcforge.envs.swe.exports.image import (
    HOME,
    SYSTEM,
    applied,
    base_image,
    created_at,
    image_name,
    install_commands,
    instance_id,
    test_command,
    variables,
)
from arcforge.envs.swe.exports.prepared import Prepared
from arcforge.envs.swe.logs.reading import Outcome

LOG = "/tmp/test.log"
PARSER = Path(__file__).with_name("pytest_parser.py")
# As RepoLaunch itself does it: its repositories are GitHub's.
_CLONE = (
    f"git init {HOME} && cd {HOME} && git remote add origin https://github.com/{{repo}}.git"
    " && git fetch --depth 1 origin {commit} && git reset --hard {commit}"
)
_WORDS: dict[Outcome, str] = {"passed": "pass", "failed": "fail", "error": "fail", "skipped": "skip"}


def repolaunch_result(prepared: Prepared) -> dict[str, Any]:
    """The contents of a result.json. setup_cmds: of a clone at base_commit. test_status: of the tests that the agent's tree has.
    UserError for a project's releases: RepoLaunch clones a repository."""
    row, environment = prepared.built.row, prepared.environment
    if row.repository.split("/")[0] in SOURCES:
        raise UserError(f"{row.repository}: made of releases; RepoLaunch wants a repository that can be cloned")
    broken = ["\n".join(applied(prepared.broken))] if prepared.broken else []
    commands = [*broken, *install_commands(prepared, shlex.join(environment.requirements))]
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables(prepared).items())
    status = {name: _WORDS[outcome] for name, outcome in sorted(prepared.now.items())}
    return {
        "repo": row.repository,
        "instance_id": instance_id(row),
        "base_commit": row.base,
        "created_at": created_at(row),
        "language": "Python",
        "docker_image_layers": {
            "base_image": base_image(environment),
            "setup_layer": [SYSTEM, _CLONE.format(repo=row.repository, commit=row.base), *commands],
            "organize_layer": [],
        },
        "setup_cmds": commands,
        "test_cmds": [f"{exports} {test_command(prepared, row.tests)} > {LOG} 2>&1"],
        "print_cmds": [f"cat {LOG}"],
        "log_parser": PARSER.read_text("utf-8"),
        "docker_image": image_name(row),
        "rebuild_cmds": [],
        "test_status": status,
        "pertest_command": {name: f"{exports} {test_command(prepared, [name])}" for name in status},
    }
