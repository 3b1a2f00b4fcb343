"""Software environments as Harbor's tasks (schema 1.4): the image's context is the task's environment, tests/test.sh grades.

Agent and tests share a container, as everywhere in Harbor: the task's test files are put back before they run and a reward that is
there already is removed, but what an agent does to Python itself is not held off. The family `manifest:FOLDER` grades elsewhere.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.exports.image import HOME, applied, instance_id, reset, test_command, variables
from arcforge.envs.swe.exports.prepared import Prepared
from arcforge.envs.swe.exports.pytest_parser import parser
from arcforge.envs.terminal.harbor import AgentPart, EnvironmentPart, HarborConfig, HarborTask, VerifierPart

AGENT_SECONDS, TEST_SECONDS = 3600.0, 900.0
_HERE = Path(__file__).parent
_LOG = "/tmp/arcforge-tests.log"
_TEST = f"""#!/bin/bash
set -uo pipefail
mkdir -p /logs/verifier && rm -rf /logs/verifier/reward.*
cd {HOME}
{{before}}
{{command}} > {_LOG} 2>&1
code=$?
{{after}}
exec python -I /tests/verdict.py {_LOG} "$code"
"""


def harbor_task(prepared: Prepared) -> HarborTask:
    """Without its environment folder, which image.write_context makes. Tests whose names the log does not give whole are in no
    list. Rejected when FAIL_TO_PASS is empty then."""
    row, seen = prepared.built.row, {name for name, outcome in parser(prepared.gold).items() if outcome == "pass"}
    names = {
        "fail_to_pass": [name for name in row.fail_to_pass if name in seen],
        "pass_to_pass": [name for name in prepared.pass_to_pass if name in seen],
    }
    if not names["fail_to_pass"]:
        raise Rejected("no_fail_to_pass", "the log's reader sees none of FAIL_TO_PASS: any patch would resolve it")
    verdict = "\n\n".join((_HERE / name).read_text("utf-8") for name in ("pytest_parser.py", "harbor_verdict.py"))
    files = {
        "tests/test.sh": _test_script(prepared),
        "tests/verdict.py": f"{verdict}\n\nmain(parser)\n",
        "tests/names.json": json.dumps(names, indent=1) + "\n",
        "solution/solve.sh": "\n".join(["#!/bin/bash", "set -e", f"cd {HOME}", *applied(prepared.built.gold)]) + "\n",
    }
    config = HarborConfig(
        metadata={
            "repository": row.repository, "commit": row.base, "source": row.source, "type": row.type,
            "fail_to_pass": len(names["fail_to_pass"]), "pass_to_pass": len(names["pass_to_pass"]),
        },
        agent=AgentPart(timeout_sec=AGENT_SECONDS),
        verifier=VerifierPart(timeout_sec=TEST_SECONDS),
        environment=EnvironmentPart(memory_mb=4096, storage_mb=4096, network_mode="no-network"),
    )  # fmt: skip
    return HarborTask(
        instance_id(row), prepared.built.statement, config, {path: text.encode() for path, text in files.items()},
        frozenset({"tests/test.sh", "solution/solve.sh"}),
    )  # fmt: skip


def _test_script(prepared: Prepared) -> str:
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables(prepared).items()]
    before = [*exports, *reset(prepared), *applied(prepared.built.hidden)]
    command = test_command(prepared, prepared.built.row.tests)
    return _TEST.format(before="\n".join(before), command=command, after="\n".join(reset(prepared)))
