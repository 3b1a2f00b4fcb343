"""SWE-bench's dataset rows, version 5: the row carries its image, the script that tests it, and the parser of what that prints.

The image is a name: `image.write_context` writes the Dockerfile that makes it. A row's base_commit is the one commit in the image,
whose history has no future; upstream_commit is the project's.
"""

from __future__ import annotations

import shlex
from typing import Any

from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.exports.image import (
    HOME,
    applied,
    created_at,
    image_name,
    instance_id,
    reset,
    test_command,
    text,
    variables,
)
from arcforge.envs.swe.exports.prepared import Prepared

PARSER = "parse_log_pytest_v2"
"""The parser of theirs that takes the names of tests with spaces whole."""
START, END = ">>>>> Start Test Output", ">>>>> End Test Output"
_PASSED = "PASSED "


def swebench_row(prepared: Prepared) -> dict[str, Any]:
    """One row. Tests that PARSER does not see passing with the solution are in no list: it loses expected failures and names with
    several spaces. Rejected when FAIL_TO_PASS is empty then."""
    row, seen = prepared.built.row, readable(prepared.gold)
    fail_to_pass = [name for name in row.fail_to_pass if name in seen]
    if not fail_to_pass:
        raise Rejected("no_fail_to_pass", f"{PARSER} reads none of FAIL_TO_PASS: any patch would resolve it")
    return {
        "repo": row.repository,
        "instance_id": instance_id(row),
        "base_commit": prepared.head,
        "upstream_commit": row.base,
        "environment_setup_commit": prepared.environment.commit,
        "version": prepared.version,
        "created_at": created_at(row),
        "problem_statement": prepared.built.statement,
        "hints_text": "",
        "patch": text(prepared.built.gold),
        "test_patch": text(prepared.built.hidden),
        "FAIL_TO_PASS": fail_to_pass,
        "PASS_TO_PASS": [name for name in prepared.pass_to_pass if name in seen],
        "image": image_name(row),
        "eval_script": eval_script(prepared),
        "log_parser": PARSER,
        "eval_type": "pass_and_fail",
    }


def readable(log: str) -> set[str]:
    """Names of passed tests as PARSER reads them from a log, those that it changes left out."""
    names = (line.removeprefix(_PASSED) for line in log.split("\n") if line.startswith(_PASSED))
    return {name for name in names if " ".join(name.split()) == name}


def eval_script(prepared: Prepared) -> str:
    """Bash: the hidden tests are put in the place of whatever the agent left there, run between the marks, and taken back. The
    command that tests is the line before the second mark, because SWE-bench adds one that keeps its exit code."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables(prepared).items()]
    lines = ["#!/bin/bash", "set -uxo pipefail", f"cd {HOME}", *exports, *reset(prepared)]
    lines += applied(prepared.built.hidden)
    lines += [f": '{START}'", test_command(prepared, prepared.built.row.tests), f": '{END}'", *reset(prepared)]
    return "\n".join(lines) + "\n"
