"""The Test Anything Protocol: node --test, tape, node-tap, and C programs that speak it."""

from __future__ import annotations

import re
from collections import Counter

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import BROKEN, Outcome, Reading

_POINT = re.compile(r"^( *)(not )?ok(?: (\d+))?(?: -)?(?: (.*?))?(?: # (SKIP|TODO)\b.*)?$", re.IGNORECASE)
_PLAN = re.compile(r"^( *)1\.\.(\d+)(?: # .*)?$")
_SUBTEST = re.compile(r"^( *)# Subtest: (.*)$")
_TOTAL = re.compile(r"^# (tests|suites|pass|fail|cancelled|skipped|todo) (\d+)$")


def tap(lines: list[str]) -> Reading:
    """Id: names from the outermost to the test, joined by " > ". A node suite (its YAML says so) is no test. The plan of
    every level has to fit its points; node's counts at the end are held against the tests."""
    reading, stack, points = Reading(), list[str](), Counter[int]()
    told: dict[str, int] = {}
    leading = -1
    for number, line in enumerate(lines):
        if found := _SUBTEST.match(line):
            stack[len(found[1]) // 4 :] = [_plain(found[2])]
        elif found := _PLAN.match(line):
            level = len(found[1]) // 4
            if not level and not points[0] and int(found[2]):
                leading = int(found[2])  # the plan may come first
                continue
            if points[level] != int(found[2]):
                raise VerifierError(f"TAP's plan {line.strip()!r} has {points[level]} points")
            points[level] = 0
            reading.summary = line if not level else reading.summary
        elif found := _POINT.match(line):
            level = len(found[1]) // 4
            points[level] += 1
            if not _is_suite(lines, number, len(found[1])):
                name = " > ".join([*stack[:level], _plain(found[4] or f"#{found[3]}")])
                reading.add(name, _outcome(bool(found[2]), found[5]))
        elif found := _TOTAL.match(line):
            told[found[1]] = int(found[2])
    if points[0] and points[0] != leading:
        raise VerifierError(f"TAP: {points[0]} points, and the plan tells {max(leading, 0)}")
    if leading >= 0:
        reading.summary = f"1..{leading}"
    if "suites" in told:
        reading.told = {
            "total": told["tests"],
            BROKEN: told["fail"] + told.get("cancelled", 0),
            "skipped": told["skipped"] + told["todo"],
        }
    return reading


def _is_suite(lines: list[str], number: int, indent: int) -> bool:
    """Whether the YAML below the point says type: 'suite'."""
    for line in lines[number + 1 : number + 12]:
        if line.strip() == "..." or not line.startswith(" " * (indent + 2)):
            return False
        if line.strip() == "type: 'suite'":
            return True
    return False


def _outcome(broken: bool, directive: str | None) -> Outcome:
    if directive:
        return "skipped"
    return "failed" if broken else "passed"


def _plain(name: str) -> str:
    return name.replace("\\#", "#").replace("\\\\", "\\").strip()


_COMMENT = re.compile(r"^# (.+)$")
_TAPE_POINT = re.compile(r"^(not )?ok (\d+)(?: (.*?))?(?: # (SKIP|TODO)\b.*)?$")
_TAPE_TOTAL = re.compile(r"^# (tests|pass|fail|skip|todo) +(\d+)$")


def tape(lines: list[str]) -> Reading:
    """Id: the comment above a test's points, with a number where it comes again; the points are its assertions, and one that is not
    ok breaks it. The plan and the counts at the end are held against the points."""
    reading, test = Reading(), ""
    points, told, seen = Counter[str](), dict[str, int](), Counter[str]()
    worst: dict[str, Outcome] = {}
    for line in lines:
        if found := _TAPE_TOTAL.match(line):
            told[found[1]] = int(found[2])
        elif found := _PLAN.match(line):
            reading.summary = reading.summary or line
            told["plan"] = int(found[2])
        elif found := _TAPE_POINT.match(line):
            outcome = _outcome(bool(found[1]), found[4])
            points.update(["plan", "tests", "fail" if outcome == "failed" else "pass"])
            if worst.get(test) != "failed":
                worst[test] = outcome if outcome == "failed" else "passed"
        elif (found := _COMMENT.match(line)) and not reading.summary:
            seen[found[1]] += 1
            test = found[1] if seen[found[1]] == 1 else f"{found[1]} #{seen[found[1]]}"
    for kind in ("plan", "tests", "fail"):
        if kind in told and told[kind] != points[kind]:
            raise VerifierError(f"tape tells {told[kind]} of {kind}, the log shows {points[kind]}")
    for name, outcome in worst.items():
        reading.add(name or "(no name)", outcome)
    return reading
