"""Tasks in Harbor's format (schema 1.4; 1.0 to 1.4 are read): what others wrote runs here, and what is written here runs there.

    <task>/instruction.md       what the agent is told
           task.toml            limits, network, environment variables
           environment/         a Dockerfile, or the name of an image in task.toml
           solution/solve.sh    the oracle's, never seen by the agent
           tests/test.sh        run after the agent, with the files beside it
           steps/<name>/...     of tasks in several steps

A field that is not known here is kept and written again: another tool may know it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from arcforge.core.errors import UserError

SCHEMA = "1.4"
READ_SCHEMAS = ("1.0", "1.1", "1.2", "1.3", "1.4")
PARTS = ("environment", "tests", "solution", "steps")
MOST_BYTES = 16 << 20
"""Of one file of a task."""
_CANARY = re.compile(r"^\s*(<!--.*canary.*-->|#.*canary.*)\s*$", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1 / (1 << 20), "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
NetworkMode = Literal["public", "no-network", "allowlist"]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class AgentPart(Part):
    """timeout_sec: of the agent's whole work; None leaves it to whoever runs it."""

    timeout_sec: float | None = Field(default=None, gt=0)
    user: str | int | None = None


class VerifierPart(Part):
    timeout_sec: float = Field(default=600.0, gt=0)
    env: dict[str, str] = {}
    user: str | int | None = None
    environment_mode: Literal["shared", "separate"] | None = None


class SolutionPart(Part):
    env: dict[str, str] = {}


class EnvironmentPart(Part):
    """Memory and storage in MiB. docker_image: instead of environment/Dockerfile."""

    build_timeout_sec: float = Field(default=600.0, gt=0)
    docker_image: str | None = None
    os: str = "linux"
    cpus: float | None = None
    memory_mb: int | None = None
    storage_mb: int | None = None
    gpus: int = 0
    env: dict[str, str] = {}
    workdir: str | None = None
    network_mode: NetworkMode = "public"
    allowed_hosts: list[str] = []
    mcp_servers: list[dict[str, Any]] = []

    @field_validator("os")
    @classmethod
    def _lower(cls, name: str) -> str:
        return name.lower()

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """Names of schemas before 1.2: memory = "2G", storage = "10G", allow_internet."""
        if not isinstance(data, Mapping):
            return data
        fields = dict(data)
        for old, new in (("memory", "memory_mb"), ("storage", "storage_mb")):
            if old in fields:
                fields.setdefault(new, megabytes(fields.pop(old)))
        if "allow_internet" in fields:
            fields.setdefault("network_mode", "public" if fields.pop("allow_internet") else "no-network")
        return fields


class HarborConfig(Part):
    """task.toml. `task` and `metadata` are free tables here."""

    schema_version: str = SCHEMA
    task: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    agent: AgentPart = AgentPart()
    verifier: VerifierPart = VerifierPart()
    environment: EnvironmentPart = EnvironmentPart()
    solution: SolutionPart = SolutionPart()
    steps: list[dict[str, Any]] = []

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """The first schema called its version `version`. Another value there is the task's own version, which Harbor reads too."""
        if isinstance(data, Mapping) and "schema_version" not in data and data.get("version") in READ_SCHEMAS:
            return {
                **{key: value for key, value in data.items() if key != "version"},
                "schema_version": data["version"],
            }
        return data

    @model_validator(mode="after")
    def _known(self) -> HarborConfig:
        if self.schema_version not in READ_SCHEMAS:
            raise ValueError(f"schema {self.schema_version!r} is not one of {', '.join(READ_SCHEMAS)}")
        return self


@dataclass(frozen=True)
class HarborTask:
    """files: path below the task's folder -> content, of PARTS; instruction.md and task.toml are the other two fields.
    executable: those of `files` that are."""

    name: str
    instruction: str
    config: HarborConfig = field(default_factory=HarborConfig)
    files: Mapping[str, bytes] = field(default_factory=dict)
    executable: frozenset[str] = frozenset()

    def part(self, name: str) -> dict[str, bytes]:
        """Files of environment, tests or solution by their path in it."""
        start = f"{name}/"
        return {path[len(start) :]: content for path, content in self.files.items() if path.startswith(start)}

    @property
    def dockerfile(self) -> str | None:
        content = self.files.get("environment/Dockerfile")
        return None if content is None else content.decode("utf-8", "replace")

    def with_network(self, mode: NetworkMode) -> HarborTask:
        """The same task with another network for its environment."""
        environment = self.config.environment.model_copy(update={"network_mode": mode})
        return replace(self, config=self.config.model_copy(update={"environment": environment}))

    def problem(self) -> str:
        """Why it cannot be run here, "" where it can."""
        environment = self.config.environment
        if self.config.steps:
            return "tasks in several steps are not run here"
        if environment.os != "linux":
            return f"it wants {environment.os}"
        if environment.gpus:
            return f"it wants {environment.gpus} GPUs"
        if any(name in self.files for name in ("environment/docker-compose.yaml", "environment/docker-compose.yml")):
            return "it wants several containers (docker compose)"
        if environment.mcp_servers:
            return "it wants MCP servers"
        if self.config.verifier.environment_mode == "separate":
            return "its tests want an environment of their own"
        if self.dockerfile is None and environment.docker_image is None:
            return "it has neither environment/Dockerfile nor a docker_image"
        return "" if "tests/test.sh" in self.files else "it has no tests/test.sh"


def read_task(folder: Path) -> HarborTask:
    """Of a task in several steps each has its own instruction, and the task none. UserError in one line names the file and what is
    wrong with it."""
    instruction, config = folder / "instruction.md", read_config(folder / "task.toml")
    if not instruction.is_file() and not config.steps:
        raise UserError(f"{folder}: no instruction.md; a Harbor task has one")
    files, executable = _files(folder)
    try:
        text = instruction.read_text("utf-8") if instruction.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{instruction}: not UTF-8: {error}") from None
    return HarborTask(folder.name, without_canary(text), config, files, executable)


def read_config(path: Path) -> HarborConfig:
    """Defaults where there is no file."""
    if not path.exists():
        return HarborConfig()
    try:
        return HarborConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc'])) or 'task.toml'}: {first['msg']}") from None


def write_task(task: HarborTask, parent: Path) -> Path:
    """Write parent/<name>, whole or not at all; the folder. UserError when it is there already or a path leaves it."""
    target = parent / task.name
    if target.exists():
        raise UserError(f"{target}: exists already; remove it or choose another folder")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=parent) as temporary:
        root = Path(temporary) / task.name
        root.mkdir()
        (root / "instruction.md").write_text(task.instruction, "utf-8")
        config = task.config.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        (root / "task.toml").write_text(tomli_w.dumps({"schema_version": SCHEMA, **config}), "utf-8")
        for path, content in task.files.items():
            parts = PurePosixPath(path).parts
            if not parts or parts[0] not in PARTS or ".." in parts:
                raise UserError(f"{task.name}: {path!r} is not in {', '.join(PARTS)}")
            place = root.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755 if path in task.executable else 0o644)
        shutil.move(root, target)
    return target


def without_canary(text: str) -> str:
    """Harbor leaves out canary lines at the top, which are there to be found in training data."""
    lines = text.splitlines(keepends=True)
    while lines and (_CANARY.match(lines[0]) or (not lines[0].strip() and len(lines) > 1 and _CANARY.match(lines[1]))):
        del lines[0]
    return "".join(lines).lstrip("\n")


def megabytes(size: Any) -> int:
    """MiB of "2G", "512Mi" or a number of bytes. ValueError when it is none."""
    found = _SIZE.fullmatch(str(size).strip())
    if found is None:
        raise ValueError(f"{size!r} is no size; write 512M or 2G")
    return max(1, round(float(found[1]) * _UNITS[found[2].upper()]))


def _files(folder: Path) -> tuple[dict[str, bytes], frozenset[str]]:
    files: dict[str, bytes] = {}
    executable = set()
    for path in sorted(path for part in PARTS for path in (folder / part).rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES >> 20} MiB")
        name = path.relative_to(folder).as_posix()
        files[name] = path.read_bytes()
        if path.stat().st_mode & 0o111:
            executable.add(name)
    return files, frozenset(executable)
