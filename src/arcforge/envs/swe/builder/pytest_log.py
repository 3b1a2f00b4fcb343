"""Reads what pytest printed with -rA: which tests passed and failed, held against its own counts and its exit code.

Names of passed tests are whole lines: a parametrised name may hold spaces, brackets and dashes, and cutting it loses or
merges tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from arcforge.envs.swe.builder.rejection import Rejected

_HEADER = re.compile(r"=+ short test summary info =+")
_TOTALS = re.compile(r"(?:=+ )?((?:\d+ [a-z]+(?: [a-z]+)?(?:, )?)+) in \d[\d.]*s(?: \([\d:, day]+\))?(?: =+)?")
_ENTRY = re.compile(r"(PASSED|FAILED|ERROR|XFAIL|XPASS) (\S.*)")
_COUNTED = {"PASSED": "passed", "FAILED": "failed", "ERROR": "error"}  # word of a line -> word of the totals
_ALL_PASSED, _SOME_FAILED = 0, 1


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite. passed: whole names. failed: of every failed test and every error all names that its line can be
    read as, since a message may follow after ` - `, which names may hold too. broken: files that could not be collected.
    """

    passed: frozenset[str]
    failed: frozenset[str]
    broken: frozenset[str]

    def fails(self, name: str) -> bool:
        """Whether a test is known not to pass: it failed, or its file could not be collected."""
        return name in self.failed or name.split("::")[0] in self.broken


def parse(log: str, exit_code: int) -> SuiteRun:
    """Rejected when the suite did not run, was cut off, or when names, counts and exit code contradict each other."""
    lines = [line.rstrip("\r") for line in log.split("\n")]
    totals_at = max((i for i, line in enumerate(lines) if _TOTALS.fullmatch(line)), default=None)
    if totals_at is None:
        raise Rejected("suite_did_not_run", f"exit code {exit_code}, no totals")
    counts = _counts(lines[totals_at])
    headers = [i for i, line in enumerate(lines[:totals_at]) if _HEADER.fullmatch(line)]
    entries = _entries(lines[headers[-1] + 1 : totals_at]) if headers else []
    run = _check(entries, counts)
    wrong = bool(counts.get("failed", 0) or counts.get("error", 0))
    if exit_code != (_SOME_FAILED if wrong else _ALL_PASSED):
        raise Rejected("exit_code", f"exit code {exit_code} after {lines[totals_at].strip('= ')}")
    return run


def _counts(line: str) -> dict[str, int]:
    found = {}
    for number, word in re.findall(r"(\d+) ([a-z]+(?: [a-z]+)?)", line.split(" in ")[0]):
        found["error" if word == "errors" else word] = int(number)
    return found


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for line in lines if (match := _ENTRY.fullmatch(line))]


def _readings(text: str) -> list[str]:
    """All names that `name - message` can mean."""
    parts = text.split(" - ")
    return [" - ".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _check(entries: list[tuple[str, str]], counts: dict[str, int]) -> SuiteRun:
    """A test whose teardown broke is listed twice, as passed and as an error: it did not pass."""
    texts = {word: [text for w, text in entries if w == word] for word in _COUNTED}
    for word, total in _COUNTED.items():
        if len(texts[word]) != counts.get(total, 0):
            raise Rejected("counts_differ", f"{len(texts[word])} names, {counts.get(total, 0)} {total}")
    if not entries and not counts.get("skipped", 0):
        raise Rejected("suite_did_not_run", "no test ran")
    wrong = [name for text in [*texts["FAILED"], *texts["ERROR"]] for name in _readings(text)]
    failed = frozenset(name for name in wrong if "::" in name)
    return SuiteRun(frozenset(texts["PASSED"]) - failed, failed, frozenset(wrong) - failed)
