"""ctest, googletest and automake's make check, for C and C++."""

from __future__ import annotations

import re
from collections import Counter

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import BROKEN, Outcome, Reading

_CTEST = re.compile(r"^ *\d+/\d+ +Test +#(\d+): (.+?) \.*\s*(\*{3}.*|Passed)\s+[\d.]+ sec")
_CTEST_FINAL = re.compile(r"^\d+% tests passed, (\d+) tests? failed out of (\d+)$")


def ctest(lines: list[str]) -> Reading:
    """Failed, timed out, crashed and not found: "failed", as the summary counts them. Skipped and disabled: "skipped",
    of which ctest leaves the disabled out of its total."""
    reading, seen, disabled = Reading(), Counter[str](), 0
    for line in lines:
        if found := _CTEST.match(line):
            status = found[3]
            seen[found[1]] += 1
            disabled += "Disabled" in status
            reading.add(found[2], _ctest_outcome(status))
        elif found := _CTEST_FINAL.match(line):
            reading.summary, reading.told = line, {BROKEN: int(found[1]), "total": int(found[2])}
    if reading.summary:
        reading.told["total"] += disabled
    if twice := next((number for number, count in seen.items() if count > 1), None):
        raise VerifierError(f"ctest's test #{twice} has more than one result")
    return reading


def _ctest_outcome(status: str) -> Outcome:
    if status == "Passed":
        return "passed"
    return "skipped" if "Skipped" in status or "Disabled" in status else "failed"


_BEGIN = re.compile(r"^\[=+\] Running (\d+) tests? from \d+ test (?:suites?|cases?)\.$")
_END = re.compile(r"^\[=+\] (\d+) tests? from \d+ test (?:suites?|cases?) ran\.")
_RUN = re.compile(r"^\[ RUN {6}\] (\S+)$")
_RESULT = re.compile(r"\[( {7}OK|  FAILED |  SKIPPED) \] (\S+?)(?:, where .*)? \(\d+ ms\)$")
_COUNT = re.compile(r"^\[  (PASSED|FAILED|SKIPPED) {1,2}\] (\d+) tests?(?:\.|, listed below:)$")
_GOOGLETEST: dict[str, Outcome] = {
    "OK": "passed", "PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped",
}  # fmt: skip


def googletest(lines: list[str]) -> Reading:
    """One or several test programs in one log. A program that dies before its summary leaves no result: an error."""
    reading, open_runs, running = Reading(told={"passed": 0, "failed": 0, "skipped": 0}), 0, ""
    for line in lines:
        if _BEGIN.match(line):
            open_runs += 1
        elif found := _RUN.match(line):
            if running:
                raise VerifierError(f"googletest: {running} did not end before {found[1]} began")
            running = found[1]
        elif (found := _RESULT.search(line)) and found[2] == running:
            reading.add(running, _GOOGLETEST[found[1].strip()])
            running = ""
        elif found := _END.match(line):
            reading.summary, open_runs = line, open_runs - 1
            reading.told["total"] = reading.told.get("total", 0) + int(found[1])
        elif found := _COUNT.match(line):
            reading.told[_GOOGLETEST[found[1]]] += int(found[2])
    if open_runs or running:
        raise VerifierError(f"googletest: a program ended before its summary, in {running or 'no test'}")
    return reading


_CHECK = re.compile(r"^(PASS|FAIL|XFAIL|XPASS|SKIP|ERROR): (\S.*?)(?: \(exit status: \d+\))?$")
_CHECK_COUNT = re.compile(r"^# (TOTAL|PASS|SKIP|XFAIL|FAIL|XPASS|ERROR): +(\d+)$")
_AUTOMAKE: dict[str, Outcome] = {
    "PASS": "passed", "XFAIL": "passed", "FAIL": "failed", "XPASS": "failed", "SKIP": "skipped", "ERROR": "error",
}  # fmt: skip


def automake(lines: list[str]) -> Reading:
    """`PASS: name` of the parallel harness, in one folder or several; its counts by folder are added up."""
    reading = Reading()
    for line in lines:
        if found := _CHECK.match(line):
            reading.add(found[2], _AUTOMAKE[found[1]])
        elif found := _CHECK_COUNT.match(line):
            kind = "total" if found[1] == "TOTAL" else _AUTOMAKE[found[1]]
            reading.told[kind] = reading.told.get(kind, 0) + int(found[2])
            reading.summary = line if found[1] == "TOTAL" else reading.summary
    return reading
