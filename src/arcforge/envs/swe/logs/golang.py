"""go test, as text (-v) and as events (-json). Go prints no counts: each test that began has to end once, and each package's
own verdict has to fit its tests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import Outcome, Reading

_OUTCOMES: dict[str, Outcome] = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
_RUN = re.compile(r"^=== RUN   (\S+)$")
_RESULT = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \([\d.]+s\)$")
_PACKAGE = re.compile(r"^(ok  |FAIL|\?   )\t(\S+)\s+(.*)$")
_BROKEN = re.compile(r"^FAIL\t(\S+) \[(build|setup) failed\]$")


def go_test(lines: list[str]) -> Reading:
    """Id: package.Test/subtest. A result glued to what the test printed without a newline is found too."""
    reading, packages = Reading(), 0
    began: list[str] = []
    ended: list[tuple[str, Outcome]] = []
    for line in lines:
        if found := _RUN.match(line):
            began.append(found[1])
        elif (found := _RESULT.search(line)) and found[2] in began:
            ended.append((found[2], _OUTCOMES[found[1]]))
        elif found := _BROKEN.match(line):
            reading.beside.append((found[1], "error"))
            packages += 1
        elif found := _PACKAGE.match(line):
            reading.results += _package(found[2], found[1].strip() == "ok", began, ended)
            began, ended, packages = [], [], packages + 1
    if began:
        raise VerifierError(f"go test did not end: {began[0]} ran and no package line follows")
    reading.summary = f"{packages} packages" if packages else ""
    return reading


def _package(name: str, passed: bool, began: list[str], ended: list[tuple[str, Outcome]]) -> list[tuple[str, Outcome]]:
    """Its results. A test without one in a failed package was cut off by a panic or a timeout: an error."""
    starts, ends = Counter(began), Counter(test for test, _ in ended)
    if more := next((test for test in ends if ends[test] > starts[test]), None):
        raise VerifierError(f"{name}: {more} began {starts[more]} times and ended {ends[more]} times")
    left = list((starts - ends).elements())
    broken = [test for test, outcome in ended if outcome == "failed"]
    if passed and (left or broken):
        raise VerifierError(f"{name} is told to be ok, and {(left or broken)[0]} did not pass")
    results = [*ended, *((test, "error") for test in left)]
    if not passed and not left and not broken:
        results.append(("", "error"))  # TestMain, an exit or a race report broke the package, no test did
    return [(f"{name}.{test}" if test else name, outcome) for test, outcome in results]


def go_json(lines: list[str]) -> Reading:
    """Events of `go test -json`; a line that is no event is another program's."""
    reading, packages = Reading(), 0
    began: dict[str, list[str]] = {}
    ended: dict[str, list[tuple[str, Outcome]]] = {}
    for event in _events(lines):
        action, name, test = event["Action"], event.get("Package", ""), event.get("Test")
        if test and action == "run":
            began.setdefault(name, []).append(test)
        elif test and action == "output" and (glued := _glued(event.get("Output", ""), test)):
            ended.setdefault(name, []).append((test, glued))
        elif test and action.upper() in _OUTCOMES:
            ended.setdefault(name, []).append((test, _OUTCOMES[action.upper()]))
        elif not test and action in ("pass", "fail", "skip"):
            packages += 1
            tests, results = began.pop(name, []), ended.pop(name, [])
            reading.results += _package(name, action != "fail", tests, results)
    if began:
        raise VerifierError(f"go test did not end: no verdict on {next(iter(began))}")
    reading.summary = f"{packages} packages" if packages else ""
    return reading


def _glued(output: str, test: str) -> Outcome | None:
    """Go before 1.20 makes no event of a result that stands behind what the test printed without a newline."""
    found = _RESULT.search(output.rstrip("\n"))
    return _OUTCOMES[found[1]] if found and found[2] == test and output[: found.start()].strip() else None


def _events(lines: list[str]) -> Iterable[dict[str, str]]:
    for line in lines:
        try:
            event = json.loads(line) if line.startswith("{") else None
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("Action"), str):
            yield event
