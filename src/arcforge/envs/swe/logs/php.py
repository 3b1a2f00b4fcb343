"""PHPUnit's testdox."""

from __future__ import annotations

import re

from arcforge.envs.swe.logs.reading import BROKEN, Outcome, Reading

_MARKS: dict[str, Outcome] = {
    "✔": "passed", "✘": "failed", "↩": "skipped", "∅": "skipped", "☢": "passed", "⚠": "passed",
}  # fmt: skip
_TEST = re.compile(rf"^ ([{''.join(_MARKS)}]) (.*?)(?:  \d+ ms|  \[[\d.]+ m?s\])?$")
_GROUP = re.compile(r"^(\S.*?)(?: \(([\w\\]+)\)| \[([\w\\]+)\])?$")
_OK = re.compile(r"^OK \((\d+) tests?, \d+ assertions?\)$")
_COUNTS = re.compile(r"^Tests: (\d+), Assertions: \d+(.*)\.$")


def phpunit(lines: list[str]) -> Reading:
    """Id: Class::sentence, the class with its namespace where testdox tells it. Errors and failures have one mark, so both
    are "failed". A risky test or one with a warning is told as passed; the exit code says whether the suite minds."""
    reading, group, previous, over = Reading(), "", "", False
    for line in lines:
        over = over or line.startswith("Time: ")  # what did not pass is listed again below
        if (found := _TEST.match(line)) and not over:
            if previous and not _TEST.match(previous) and (head := _GROUP.match(previous)):
                group = head[2] or head[3] or head[1]
            reading.add(f"{group}::{found[2]}", _MARKS[found[1]])
        elif found := _OK.match(line):
            reading.summary, reading.told = line, {"total": int(found[1]), BROKEN: 0, "skipped": 0}
        elif found := _COUNTS.match(line):
            told = {name: int(count) for name, count in re.findall(r"([A-Z][A-Za-z ]*): (\d+)", found[2])}
            reading.summary = line
            reading.told = {
                "total": int(found[1]),
                BROKEN: told.get("Errors", 0) + told.get("Failures", 0),
                "skipped": told.get("Skipped", 0) + told.get("Incomplete", 0),
            }
        if line.strip() and not line.startswith("   "):
            previous = line
        elif not line:
            previous = ""
    return reading
