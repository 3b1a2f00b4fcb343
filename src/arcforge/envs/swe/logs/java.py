"""Maven's surefire and Gradle, from the console. JUnit's XML (junit.py) tells more: surefire's console names only what broke."""

from __future__ import annotations

import re

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import BROKEN, Outcome, Reading

_LEVEL = r"^(?:\[[A-Z]+\] )?"
_COUNTS = r"Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)"
_CLASS = re.compile(
    rf"{_LEVEL}{_COUNTS}, Time elapsed: [\d.,]+ s(?:ec)?(?: <<< (?:FAILURE|ERROR)!)?(?: --? in|\s+- in) (\S+)$"
)
_METHOD = re.compile(rf"{_LEVEL}([\w.$]+)\.(\S.*?) --? Time elapsed: [\d.,]+ s(?:ec)?(?: <<< (FAILURE|ERROR)!)?$")
_OLD_METHOD = re.compile(rf"{_LEVEL}(\S.*?)\(([\w.$]+)\)  Time elapsed: [\d.,]+ s(?:ec)?(?:  <<< (FAILURE|ERROR)!)?$")
_TOTAL = re.compile(rf"{_LEVEL}{_COUNTS}$")
_BUILD = re.compile(rf"{_LEVEL}BUILD (SUCCESS|FAILURE)$")
_BROKEN: dict[str | None, Outcome] = {None: "passed", "FAILURE": "failed", "ERROR": "error"}


def maven(lines: list[str]) -> Reading:
    """Ids: Class.method for every method that is named (with surefire's plain report format: all of them), and the class
    itself where methods stay unnamed. The classes' counts have to add up to the modules' totals."""
    reading, methods = Reading(), dict[str, list[tuple[str, Outcome]]]()
    classes: list[tuple[str, list[int]]] = []
    totals, build = [0, 0, 0, 0], ""
    for line in lines:
        if found := _CLASS.match(line):
            classes.append((found[5], [int(found[i]) for i in range(1, 5)]))
        elif found := _METHOD.match(line):
            methods.setdefault(found[1], []).append((found[2], _BROKEN[found[3]]))
        elif found := _OLD_METHOD.match(line):
            methods.setdefault(found[2], []).append((found[1], _BROKEN[found[3]]))
        elif found := _TOTAL.match(line):
            totals = [total + int(found[i + 1]) for i, total in enumerate(totals)]
        elif found := _BUILD.match(line):
            build = found[0]
    summed = [sum(counts[i] for _, counts in classes) for i in range(4)]
    if summed != totals:
        raise VerifierError(f"surefire's totals are {totals} (run, failures, errors, skipped), its classes' {summed}")
    for name, counts in classes:
        reading.results += _class(name, counts, methods.get(name, []))
    reading.summary = f"{build}, {totals[0]} tests" if build and classes else ""
    return reading


def _class(name: str, counts: list[int], methods: list[tuple[str, Outcome]]) -> list[tuple[str, Outcome]]:
    run, failures, errors, skipped = counts
    named: list[tuple[str, Outcome]] = [(f"{name}.{method}", outcome) for method, outcome in methods]
    broken = [outcome for _, outcome in named if outcome != "passed"]
    if len(broken) != failures + errors:
        raise VerifierError(f"{name}: {failures + errors} methods are told to be broken, {len(broken)} are named")
    if len(named) >= run - skipped:
        skipped_whole: list[tuple[str, Outcome]] = [(name, "skipped")]
        return named or skipped_whole
    whole: Outcome = "error" if errors else "failed" if failures else "skipped" if skipped == run else "passed"
    return [*named, (name, whole)]


_GRADLE = re.compile(r"^(\S[^>]*(?: > .+)+) (PASSED|FAILED|SKIPPED)$")
_GRADLE_TOTAL = re.compile(r"^(\d+) tests? completed(?:, (\d+) failed)?(?:, (\d+) skipped)?$")
_GRADLE_BUILD = re.compile(r"^BUILD (SUCCESSFUL|FAILED) in ")
_GRADLE_OUTCOMES: dict[str, Outcome] = {"PASSED": "passed", "FAILED": "failed", "SKIPPED": "skipped"}


def gradle(lines: list[str]) -> Reading:
    """`Class > method() PASSED`. Gradle counts only where a test failed; a build that failed with no failed test has
    broken elsewhere, and says nothing about tests."""
    reading, totals, build = Reading(), [0, 0, 0], ""
    for line in lines:
        if found := _GRADLE.match(line):
            reading.add(found[1], _GRADLE_OUTCOMES[found[2]])
        elif found := _GRADLE_TOTAL.match(line):
            totals = [total + int(found[i + 1] or 0) for i, total in enumerate(totals)]
        elif _GRADLE_BUILD.match(line):
            build = line
    failed = sum(outcome == "failed" for _, outcome in reading.results)
    if build.startswith("BUILD FAILED") and not failed:
        raise VerifierError("gradle's build failed and no test did")
    if build.startswith("BUILD SUCCESSFUL") and failed:
        raise VerifierError(f"gradle's build is told to be successful and {failed} tests failed")
    if totals[0]:
        reading.told = {BROKEN: totals[1]}
        if failed > totals[1] or len(reading.results) < totals[0]:
            raise VerifierError(
                f"gradle tells {totals[0]} tests, {totals[1]} failed; the log shows {len(reading.results)}"
            )
    reading.summary = build
    return reading
