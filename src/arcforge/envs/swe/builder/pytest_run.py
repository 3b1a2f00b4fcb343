"""How pytest is run, and what it said."""

from __future__ import annotations

from arcforge.core.errors import VerifierError
from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.measurement import SuiteRun
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.logs.parse import parse
from arcforge.envs.swe.logs.reading import SuiteDidNotRun

# The project's own options are dropped (they start other plugins, change the report or stop early), but for those that
# detection keeps. A file that cannot be collected must not stop the others.
OPTIONS = (
    "-v", "-rA", "--tb=no", "--color=no", "--continue-on-collection-errors", "-p", "no:cacheprovider",
    "-p", "no:randomly", "-p", "no:sugar", "-o", "addopts=", "-o", "log_cli=false",
)  # fmt: skip
PYTEST = ("-m", "pytest", *OPTIONS)
_ALL_PASSED, _SOME_FAILED = 0, 1  # exit codes


def read_run(result: ExecResult) -> SuiteRun:
    """Rejected when the suite did not run to its end, or its log contradicts itself."""
    if result.truncated:
        raise Rejected("output", "more output than is kept")
    said = (result.stderr or result.stdout).strip()[-300:]
    if result.exit_code not in (_ALL_PASSED, _SOME_FAILED):
        raise Rejected("suite_did_not_run", f"exit code {result.exit_code}: {said}")
    try:
        outcomes = parse("pytest", result.stdout, result.exit_code)
    except SuiteDidNotRun as error:
        raise Rejected("suite_did_not_run", f"{error}: {said}") from None
    except VerifierError as error:
        raise Rejected("log", str(error)) from None
    return SuiteRun.of(outcomes)
