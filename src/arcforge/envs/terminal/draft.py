"""What an author of a terminal task writes, made into a task in Harbor's format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcforge.envs.terminal.harbor import AgentPart, EnvironmentPart, HarborConfig, HarborTask, VerifierPart

CHECKER = Path(__file__).with_name("checker.py")
IMAGE = "debian:bookworm-slim"
TEST_SH = """#!/bin/bash -p
# Nothing of the agent's is used: not its working directory, its environment, nor programs that it put on the path.
cd / || exit 3
mkdir -p /logs/verifier || exit 3
exec /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 /usr/bin/python3 -I -S /tests/check.py
"""
AGENT_SECONDS, VERIFIER_SECONDS = 900.0, 120.0


@dataclass(frozen=True)
class Draft:
    """files: path below /app -> content. setup: bash, run in /app as the image is built (times, modes, links, a git
    history). packages: Debian's, beside python3. solution: bash, run in /app; it has to find the answer, not to know it.
    checks: what checker.py holds against /app."""

    instruction: str
    solution: str
    checks: list[dict[str, Any]]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    setup: str = ""
    packages: tuple[str, ...] = ()


def build(name: str, draft: Draft, metadata: Mapping[str, Any]) -> HarborTask:
    """metadata: provenance, into task.toml."""
    files = {f"environment/app/{path}": _raw(text) for path, text in draft.files.items()}
    if draft.setup:
        files["environment/setup.sh"] = _raw(f"set -eu\n{draft.setup.strip()}\n")
    files["environment/Dockerfile"] = _raw(_dockerfile(draft))
    files["solution/solve.sh"] = _raw(f"#!/bin/bash\nset -eu\n{draft.solution.strip()}\n")
    files["tests/test.sh"] = _raw(TEST_SH)
    files["tests/check.py"] = CHECKER.read_bytes()
    files["tests/checks.json"] = _raw(json.dumps(draft.checks, indent=1, ensure_ascii=False) + "\n")
    config = HarborConfig(
        metadata=dict(metadata),
        agent=AgentPart(timeout_sec=AGENT_SECONDS),
        verifier=VerifierPart(timeout_sec=VERIFIER_SECONDS),
        environment=EnvironmentPart(memory_mb=1024, storage_mb=1024, cpus=1, network_mode="no-network"),
    )
    executable = frozenset({"solution/solve.sh", "tests/test.sh"})
    return HarborTask(name, draft.instruction.strip() + "\n", config, files, executable)


def sha256(content: str | bytes) -> str:
    return hashlib.sha256(_raw(content)).hexdigest()


def csv_text(rows: list[list[Any]], separator: str = ",") -> str:
    """Cells are taken as they are: without separators or quotes."""
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def _raw(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _dockerfile(draft: Draft) -> str:
    packages = " ".join(["python3", *draft.packages])
    lines = [
        f"FROM {IMAGE}",
        f"RUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*",
        "ENV LANG=C.UTF-8 TZ=UTC",
        "WORKDIR /app",
    ]
    if draft.files:
        lines.append("COPY app/ /app/")
    if draft.setup:
        lines += ["COPY setup.sh /tmp/setup.sh", "RUN bash /tmp/setup.sh && rm /tmp/setup.sh"]
    return "\n".join(lines) + "\n"
