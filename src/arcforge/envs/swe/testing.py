"""Runs the runner on a directory and reads its report."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.protocols import ExecResult, Sandbox
from arcforge.envs.swe.repository import PASSED, Case, failure_line
from arcforge.sandbox.fork import FORK_LIMITS, ForkServer

RUNNER = Path(__file__).with_name("runner.py").resolve()
TEST_SECONDS = 5.0


@dataclass(frozen=True)
class Report:
    """cases: (module, call, got, want) as the runner saw them. problem: "" or why there is no report."""

    cases: tuple[tuple[str, str, object, object], ...] = ()
    exit_code: int = -1
    problem: str = ""

    def answer(self) -> str:
        """The `test` tool's text: the first failing case, or that all passed."""
        if self.problem:
            return self.problem
        for module, call, got, want in self.cases:
            if not call:
                return f"{module}.py error"
            if got != want:
                return failure_line(module, call, got, want)
        return PASSED

    def passes(self, expected: Sequence[Case]) -> bool:
        """Exactly the expected cases ran and each gave the expected value, and the exit code agrees."""
        wanted = [(case.module, case.call, case.want) for case in expected]
        ran = [(module, call, got) for module, call, got, _ in self.cases]
        return bool(wanted) and ran == wanted and self.exit_code == 0 and not self.problem


async def run_tests(server: ForkServer, directory: Path) -> Report:
    """Raises SandboxError when the machinery fails; a suite that crashes, exits or hangs is a Report with a problem."""
    nonce = secrets.token_hex(8)
    return _report(await server.run(directory, [str(RUNNER), nonce], TEST_SECONDS, limits=FORK_LIMITS), nonce)


async def run_tests_in(sandbox: Sandbox) -> Report:
    """The same in a sandbox that shows RUNNER and this Python where they are outside."""
    nonce = secrets.token_hex(8)
    return _report(await sandbox.exec(["env", "PYTHONPATH=.", sys.executable, str(RUNNER), nonce], TEST_SECONDS), nonce)


def _report(result: ExecResult, nonce: str) -> Report:
    if result.timed_out:
        return Report(problem="timeout")
    try:
        report = json.loads(result.stdout)
        if report["nonce"] != nonce:
            raise ValueError("a report that the runner did not write")
        return Report(tuple(tuple(case) for case in report["cases"]), result.exit_code)
    except (ValueError, KeyError, TypeError):
        return Report(problem="error")
