"""What a parser saw in a log, and whether it agrees with itself: counts that the tool's own summary tells, and the exit code.

A log that does not agree raises VerifierError. It is no failed test: nobody knows what came out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from arcforge.core.errors import VerifierError

Outcome = Literal["passed", "failed", "skipped", "error"]
BROKEN = "broken"
"""failed and error together, where a tool's lines do not tell them apart."""
_SEVERITY: tuple[Outcome, ...] = ("skipped", "passed", "failed", "error")


@dataclass
class Reading:
    """results: (test id, outcome), as often as the log has them. told: counts of the summary by outcome, `BROKEN` or
    "total". beside: results that the summary does not count (a file that could not be loaded). summary: the line that
    proves that the suite ran to its end, "" where there is none."""

    results: list[tuple[str, Outcome]] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    beside: list[tuple[str, Outcome]] = field(default_factory=list)
    summary: str = ""

    def add(self, test: str, outcome: Outcome, times: int = 1) -> None:
        for _ in range(times):
            self.results.append((test, outcome))


class SuiteDidNotRun(VerifierError):
    """The log has no end of a suite, or no test."""


@dataclass(frozen=True)
class SuiteReport:
    """tests: outcome by test id; a test that ran more than once has its worst. summary: the evidence that the suite ran."""

    tests: Mapping[str, Outcome]
    summary: str


def settle(reading: Reading, exit_code: int | None) -> SuiteReport:
    """The report, or VerifierError: no summary or no test (SuiteDidNotRun), counts that differ, an exit code that says otherwise."""
    if not reading.summary:
        raise SuiteDidNotRun("no summary in the log: the suite did not run to its end")
    _agree(reading)
    tests = merge([*reading.results, *reading.beside])
    if not tests:
        raise SuiteDidNotRun(f"no test in the log, its summary is {reading.summary!r}")
    broken = sum(outcome in ("failed", "error") for outcome in tests.values())
    if exit_code == 0 and broken:
        raise VerifierError(f"{broken} tests are broken and the exit code is 0")
    if exit_code and not broken:
        raise VerifierError(f"no test is broken and the exit code is {exit_code}")
    return SuiteReport(tests, reading.summary)


def merge(results: list[tuple[str, Outcome]]) -> dict[str, Outcome]:
    """Outcome by id, the worst where an id comes more than once."""
    tests: dict[str, Outcome] = {}
    for test, outcome in results:
        before = tests.get(test, outcome)
        tests[test] = outcome if _SEVERITY.index(outcome) > _SEVERITY.index(before) else before
    return tests


def _agree(reading: Reading) -> None:
    counts = Counter(outcome for _, outcome in reading.results)
    found = {**counts, BROKEN: counts["failed"] + counts["error"], "total": len(reading.results)}
    for kind, told in reading.told.items():
        if found.get(kind, 0) != told:
            raise VerifierError(
                f"the summary {reading.summary!r} tells {told} {kind}, the log shows {found.get(kind, 0)}"
            )
