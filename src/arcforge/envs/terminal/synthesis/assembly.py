"""Files that a model wrote, as a Harbor task that can be run here, or the reason why they are none."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from arcforge.core.errors import TaskError
from arcforge.envs.terminal.checker import CHECKS
from arcforge.envs.terminal.dockerfile import recipe
from arcforge.envs.terminal.draft import AGENT_SECONDS, CHECKER, TEST_SH, VERIFIER_SECONDS
from arcforge.envs.terminal.harbor import AgentPart, HarborConfig, HarborTask, VerifierPart
from arcforge.envs.terminal.synthesis.files import Malformed

REQUIRED = ("instruction.md", "environment/Dockerfile", "solution/solve.sh")
EXECUTABLE = frozenset({"solution/solve.sh", "tests/test.sh"})
MOST_VERIFIER_SECONDS = 300.0
SHORTEST_INSTRUCTION = 40
WORKDIR = "/app"
# An install line is no step in a sandbox, so that whatever else stood in it would not be done.
_INSTALLING = re.compile(r"^RUN\s+apt(?:-get)?\b(?P<rest>.*)", re.MULTILINE)
_APT = re.compile(r"^(?:apt(?:-get)?\s|rm -rf /var/lib/apt/lists)")


def assemble(name: str, files: Mapping[str, str], metadata: Mapping[str, Any]) -> HarborTask:
    """metadata: all that task.toml holds of it; what the model wrote there is not kept. Malformed in one line, for the model."""
    if missing := [path for path in REQUIRED if not files.get(path, "").strip()]:
        raise Malformed(f"missing or empty: {', '.join(missing)}")
    if len(files["instruction.md"].strip()) < SHORTEST_INSTRUCTION:
        raise Malformed(f"instruction.md has fewer than {SHORTEST_INSTRUCTION} characters")
    _check_dockerfile(files["environment/Dockerfile"])
    raw = {path: text.encode() for path, text in files.items() if path not in ("instruction.md", "task.toml")}
    instruction = files["instruction.md"].strip() + "\n"
    task = HarborTask(name, instruction, _config(files.get("task.toml", ""), metadata), _tested(raw), EXECUTABLE)
    if problem := task.problem():
        raise Malformed(problem)
    return task


def standard_checks(task: HarborTask) -> list[dict[str, Any]] | None:
    """The checks of a task that has the checker of the generated tasks; None for one with tests of its own."""
    if task.files.get("tests/test.sh") != TEST_SH.encode() or task.files.get("tests/check.py") != CHECKER.read_bytes():
        return None
    return json.loads(task.files["tests/checks.json"])


def _config(text: str, metadata: Mapping[str, Any]) -> HarborConfig:
    try:
        config = HarborConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"task.toml: not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise Malformed(f"task.toml: {'.'.join(map(str, first['loc'])) or 'schema'}: {first['msg']}") from None
    given = config.verifier.timeout_sec if "timeout_sec" in config.verifier.model_fields_set else VERIFIER_SECONDS
    if given > MOST_VERIFIER_SECONDS:
        raise Malformed(f"task.toml: verifier.timeout_sec is over {MOST_VERIFIER_SECONDS:g}")
    if config.verifier.env or config.environment.env or config.environment.docker_image:
        raise Malformed("task.toml: verifier.env, environment.env and environment.docker_image are not used here")
    changes = {"memory_mb": 1024, "storage_mb": 1024, "cpus": 1, "network_mode": "no-network"}
    return HarborConfig(
        metadata=dict(metadata),
        agent=AgentPart(timeout_sec=config.agent.timeout_sec or AGENT_SECONDS),
        verifier=VerifierPart(timeout_sec=given),
        environment=config.environment.model_copy(update=changes),
        steps=config.steps,
    )


def _check_dockerfile(text: str) -> None:
    try:
        followed = recipe(text)
    except TaskError as error:
        raise Malformed(str(error)) from None
    if followed.workdir != WORKDIR:
        raise Malformed(f"Dockerfile: the last WORKDIR is {followed.workdir}; it has to be {WORKDIR}")
    for found in _INSTALLING.finditer(re.sub(r"\\\n", " ", text)):
        parts = [part.strip() for part in re.split(r"&&|;", f"apt {found['rest']}") if part.strip()]
        if other := next((part for part in parts if not _APT.match(part)), ""):
            raise Malformed(f"Dockerfile: a RUN line that installs packages does nothing else; move {other[:60]!r}")


def _tested(raw: dict[str, bytes]) -> dict[str, bytes]:
    """With the checker of the generated tasks, where checks.json is given and no test.sh."""
    if "tests/test.sh" in raw:
        return raw
    if "tests/checks.json" not in raw:
        raise Malformed("there is neither tests/test.sh nor tests/checks.json")
    _check_checks(raw["tests/checks.json"].decode())
    return {**raw, "tests/test.sh": TEST_SH.encode(), "tests/check.py": CHECKER.read_bytes()}


def _check_checks(text: str) -> None:
    try:
        checks = json.loads(text)
    except ValueError as error:
        raise Malformed(f"tests/checks.json: not JSON: {error}") from None
    if not isinstance(checks, list) or not checks or not all(isinstance(check, dict) for check in checks):
        raise Malformed("tests/checks.json: a list of objects is wanted, and not an empty one")
    for check in checks:
        kind = check.get("kind")
        if not isinstance(kind, str) or kind not in CHECKS:
            raise Malformed(f"tests/checks.json: kind {kind!r} is not one of {', '.join(CHECKS)}")
        try:
            inspect.signature(CHECKS[kind]).bind(**{key: value for key, value in check.items() if key != "kind"})
        except TypeError as error:
            raise Malformed(f"tests/checks.json: {kind}: {error}") from None
