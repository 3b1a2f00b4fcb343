"""The one place that runs a model's code: a sandbox, the test program in it, and what its report is worth."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from arcforge.core.errors import SandboxError, TaskError, VerifierError
from arcforge.core.messages import Value
from arcforge.core.protocols import ExecResult, Sandbox
from arcforge.sandbox.fork import ForkSandbox, ForkServer
from arcforge.sandbox.limits import Limits

RUNNER = Path(__file__).with_name("runner.py")
CPU_SECONDS, WALL_SECONDS = 5, 20.0
GRACE_SECONDS = 20.0
LIMITS = Limits(cpu_seconds=2 * CPU_SECONDS, memory_bytes=1 << 30, file_bytes=4 << 20, output_bytes=32 << 10)

Sandboxes = Callable[[], Sandbox]
"""Makes a new sandbox that runs `python FILE` and `python -c CODE`."""


class Program(Value):
    """What is run beside the model's code: see runner.py. preamble: source that the solution finds already run."""

    tests: tuple[str, ...]
    names: tuple[str, ...]
    preamble: str = ""
    setup: str = ""


class Report(Value):
    """passed of total tests. problem: the first failure, "" when there is none."""

    passed: int
    total: int
    problem: str = ""


def forked(server: ForkServer) -> Sandboxes:
    """Sandboxes whose runs are forked children of `server`."""
    return lambda: ForkSandbox(server, limits=LIMITS)


async def run_tests(sandboxes: Sandboxes, code: str, program: Program, wall_seconds: float = WALL_SECONDS) -> Report:
    """The tests of `program` on `code`. A solution that does not load, crashes, hangs or ends the test program fails.

    Raises SandboxError when the sandbox is broken, VerifierError when the test program does not work even on an empty
    solution or contradicts its exit code, TaskError when the tests cannot be run by it.
    """
    report = await _attempt(sandboxes, code, program, wall_seconds)
    if report is None:
        if await _attempt(sandboxes, "", program, wall_seconds) is None:
            raise VerifierError("the test program leaves no report, not even on an empty solution")
        return Report(passed=0, total=len(program.tests), problem="the solution ended the test program")
    if report.problem.startswith("bad test:"):
        raise TaskError(report.problem)
    return report


async def _attempt(sandboxes: Sandboxes, code: str, program: Program, wall_seconds: float) -> Report | None:
    """None when there is no report that the test program wrote."""
    nonce = secrets.token_hex(16)
    tests = {"nonce": nonce, "setup": program.setup, "names": program.names, "tests": program.tests}
    files = {
        "runner.py": RUNNER.read_text(),
        "limits.json": json.dumps({"cpu_seconds": CPU_SECONDS, "wall_seconds": wall_seconds}),
        "solution.json": json.dumps([program.preamble, code]),
        "tests.json": json.dumps(tests),
    }
    result = await _run(sandboxes, files, ["python", "runner.py"], wall_seconds + GRACE_SECONDS)
    try:
        told = json.loads(result.stdout)
        report = Report(passed=told["passed"], total=told["total"], problem=told["problem"])
        if told["nonce"] != nonce or report.total != len(program.tests):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    if (result.exit_code == 0) != (report.passed == report.total):
        raise VerifierError(f"{report.passed} of {report.total} tests passed, but the exit code is {result.exit_code}")
    return report


async def _run(sandboxes: Sandboxes, files: Mapping[str, str], argv: Sequence[str], timeout: float) -> ExecResult:
    sandbox = sandboxes()
    try:
        for path, text in files.items():
            await sandbox.write(path, text)
        return await sandbox.exec(argv, timeout)
    except OSError as error:
        raise SandboxError(f"the sandbox cannot be written: {error}") from error
    finally:
        await sandbox.close()
