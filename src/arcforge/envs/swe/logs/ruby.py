"""minitest, RSpec and test-unit."""

from __future__ import annotations

import re

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import Outcome, Reading

_MINITEST: dict[str, Outcome] = {".": "passed", "F": "failed", "E": "error", "S": "skipped"}
_WHOLE = re.compile(r"^(.+#.+) = \d+\.\d+ s = ([.FES])$")
_STARTED = re.compile(r"^(.+?#.+?) = ")
_ENDED = re.compile(r"(?:^|[^\d])\d+\.\d+ s = ([.FES])$")
_RUNS = re.compile(r"^(\d+) (?:runs|tests), \d+ assertions, (\d+) failures, (\d+) errors, (\d+) skips")


def minitest(lines: list[str]) -> Reading:
    """`Class#test_name = 0.00 s = .`; what a test prints stands between its name and its time."""
    reading, running = Reading(), ""
    for line in lines:
        if found := _RUNS.match(line):
            total, failures, errors, skips = map(int, found.groups())
            reading.summary = line
            reading.told = {"total": total, "failed": failures, "error": errors, "skipped": skips}
        if found := _WHOLE.match(line):
            reading.add(found[1], _MINITEST[found[2]])
            running = ""
        elif found := _STARTED.match(line):
            running = found[1]
        elif running and (found := _ENDED.search(line)):
            reading.add(running, _MINITEST[found[1]])
            running = ""
    return reading


_EXAMPLES = re.compile(r"^(\d+) examples?, (\d+) failures?(?:, (\d+) pending)?(?:, (\d+) errors? occurred.*)?$")
_RSPEC_MARK = re.compile(r" \((FAILED - \d+|PENDING: .*|ERROR - \d+)\)$")
_RSPEC_END = ("Failures:", "Pending:", "Finished in ", "Randomized with seed", "An error occurred")


def rspec(lines: list[str]) -> Reading:
    """Documentation format: groups by indentation, an example is a line with nothing below it. Id: groups and example,
    joined by " > "."""
    reading = Reading()
    for line in lines:
        if found := _EXAMPLES.match(line):
            total, failures, pending, outside = (int(group or 0) for group in found.groups())
            if outside:
                raise VerifierError(f"rspec could not load everything: {line}")
            reading.summary = line
            reading.told = {"total": total, "failed": failures, "skipped": pending}
    end = next((i for i, line in enumerate(lines) if line.startswith(_RSPEC_END) and i), len(lines))
    start = 1 if lines and lines[0].startswith("Randomized") else 0
    tree = [line for line in lines[start:end] if line.strip()]
    stack: list[str] = []
    for line, following in zip(tree, [*tree[1:], ""]):
        depth = _depth(line)
        stack[depth:] = [line.strip()]
        mark = _RSPEC_MARK.search(line)
        if depth and (mark or _depth(following) <= depth):
            stack[-1] = _RSPEC_MARK.sub("", stack[-1])
            reading.add(" > ".join(stack), _rspec_outcome(mark[1] if mark else ""))
    return reading


def _depth(line: str) -> int:
    return (len(line) - len(line.lstrip(" "))) // 2


def _rspec_outcome(mark: str) -> Outcome:
    return "failed" if mark.startswith(("FAILED", "ERROR")) else "skipped" if mark else "passed"


_UNIT: dict[str, Outcome] = {".": "passed", "F": "failed", "E": "error", "P": "skipped", "O": "skipped", "N": "passed"}
_UNIT_CASE = re.compile(r"^(\S+): *$")
# A long name leaves no room for tabs.
_UNIT_TEST = re.compile(r"^  (\S.*?):(?:\t+(?:([.FEPON])(?:: \([\d.]+\))?|.*)|([.FEPON])(?:: \([\d.]+\))?)$")
_UNIT_LATE = re.compile(r"([.FEPON]): \([\d.]+\)$")
_UNIT_COUNTS = re.compile(
    r"^(\d+) tests, \d+ assertions, (\d+) failures, (\d+) errors, (\d+) pendings, (\d+) omissions, \d+ notifications$"
)


def test_unit(lines: list[str]) -> Reading:
    """`  test_name:   .: (0.0004)` below its class. Id: test_name(Class), as test-unit's own reports have it."""
    reading, case, pending = Reading(), "", ""
    for line in lines:
        if found := _UNIT_COUNTS.match(line):
            total, failures, errors, pendings, omissions = map(int, found.groups())
            reading.summary = line
            reading.told = {"total": total, "failed": failures, "error": errors, "skipped": pendings + omissions}
        elif found := _UNIT_CASE.match(line):
            case = found[1]
        elif case and (found := _UNIT_TEST.match(line)):
            pending = f"{found[1]}({case})"
            if mark := found[2] or found[3]:
                reading.add(pending, _UNIT[mark])
                pending = ""
        elif pending and (found := _UNIT_LATE.search(line)):
            reading.add(pending, _UNIT[found[1]])
            pending = ""
    return reading
