"""pytest and unittest."""

from __future__ import annotations

import re

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import Outcome, Reading

# An expected failure is what the suite wants: it passes, as SWE-bench has it.
_PYTEST: dict[str, Outcome] = {
    "PASSED": "passed", "XPASS": "passed", "XFAIL": "passed", "FAILED": "failed", "SKIPPED": "skipped", "ERROR": "error",
}  # fmt: skip
_PYTEST_COUNTS: dict[str, Outcome] = {
    "passed": "passed", "xpassed": "passed", "xfailed": "passed", "failed": "failed", "skipped": "skipped",
    "error": "error", "errors": "error",
}  # fmt: skip
_STATUS = "|".join(_PYTEST)
_FINAL = re.compile(
    r"^(?:=+ )?(\d+ [a-z]+(?: [a-z]+)?(?:, \d+ [a-z]+(?: [a-z]+)?)*) in [\d.]+s(?: \([^)]*\))?(?: =+)?$"
)
_SECTION = re.compile(
    r"^=+ (?:FAILURES|ERRORS|PASSES|XPASSES|XFAILURES|warnings summary.*|short test summary info) =+$"
)
_SHORT = re.compile(r"^=+ short test summary info =+$")
_VERBOSE = re.compile(rf"^(\S.*::.*\S) ({_STATUS})(?: \(.*\))?\s*(?:\[ *\d+%\])?$")
_WORKER = re.compile(rf"^\[gw\d+\] \[ *\d+%\] ({_STATUS}) (\S.*\S) *$")
_SKIPS = re.compile(r"^SKIPPED \[(\d+)\] (\S+:\d+)(?:: .*)?$")


def pytest(lines: list[str]) -> Reading:
    """Lines of -v (and of xdist's workers), the short summary of -rA, or both. A skipped test that only the folded
    summary tells has the id path:line."""
    reading = Reading()
    start = max((i for i, line in enumerate(lines) if _SHORT.match(line)), default=-1)
    finals = [found for line in lines[start + 1 :] if (found := _FINAL.match(line))]
    if not finals:
        return reading
    if len(finals) > 1:
        raise VerifierError(f"pytest's summary is there more than once: {finals[0][0]!r}, {finals[-1][0]!r}")
    reading.summary = finals[0][0].strip("= ")
    for count, word in re.findall(r"(\d+) ([a-z]+(?: [a-z]+)?)", finals[0][1]):
        if outcome := _PYTEST_COUNTS.get(word):
            reading.told[outcome] = reading.told.get(outcome, 0) + int(count)
    shown = _verbose(lines)
    short = _short(lines[start + 1 :], [test for test, _ in shown]) if start >= 0 else []
    # One test may pass and then break in its teardown: two results of one id. The same line twice is told twice.
    both = list(dict.fromkeys([*shown, *short]))
    skipped = any(outcome == "skipped" for _, outcome in both)
    folded = [] if skipped or start < 0 else [found for line in lines[start + 1 :] if (found := _SKIPS.match(line))]
    reading.results = both
    for found in folded:
        reading.add(found[2], "skipped", int(found[1]))
    return reading


def _verbose(lines: list[str]) -> list[tuple[str, Outcome]]:
    end = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    results = []
    for line in lines[:end]:
        if found := _WORKER.match(line):
            results.append((found[2], _PYTEST[found[1]]))
        elif found := _VERBOSE.match(line):
            results.append((found[1], _PYTEST[found[2]]))
    return results


def _short(lines: list[str], known: list[str]) -> list[tuple[str, Outcome]]:
    results = []
    for line in lines:
        status, _, rest = line.partition(" ")
        if status in _PYTEST and rest and not _SKIPS.match(line):
            results.append((_without_message(rest, known), _PYTEST[status]))
    return results


def _without_message(text: str, known: list[str]) -> str:
    """The id of `id - message`: an id seen before, or all up to the first " - " outside a parameter's brackets."""
    seen = [test for test in known if text == test or text.startswith(f"{test} - ")]
    if seen:
        return max(seen, key=len)
    pieces = text.split(" - ")
    for count in range(1, len(pieces)):
        head = " - ".join(pieces[:count])
        if "[" not in head.partition("::")[2] or head.endswith("]"):
            return head
    return text


_UNITTEST: dict[str, Outcome] = {
    "ok": "passed", "FAIL": "failed", "ERROR": "error", "expected failure": "passed", "unexpected success": "failed",
}  # fmt: skip
_CASE = re.compile(r"^( *)(\w+ \([\w.]+\)(?: \(.*\)| \[.*\])*)(?: \.\.\. ?(.*))?$")
_TAIL = re.compile(r"^.* \.\.\. (ok|FAIL|ERROR|expected failure|unexpected success|skipped .*)$")
_RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s$")
_VERDICT = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$")


def unittest(lines: list[str]) -> Reading:
    """`test (module.Class.test) ... ok`; a docstring or output between the id and its outcome is allowed for."""
    end = max((i for i, line in enumerate(lines) if _RAN.match(line)), default=-1)
    if end < 0:
        return Reading()
    verdict = next((found for line in lines[end + 1 :] if (found := _VERDICT.match(line))), None)
    if verdict is None:
        return Reading()
    reading = Reading(summary=f"{lines[end]}: {verdict[0]}")
    ran = _cases(lines[:end], reading)
    told = {name: int(count) for name, count in re.findall(r"([a-z ]+)=(\d+)", verdict[1] or "")}
    told = {name.strip(): count for name, count in told.items()}
    reading.told = {
        "failed": told.get("failures", 0) + told.get("unexpected successes", 0),
        "error": told.get("errors", 0),
        "skipped": told.get("skipped", 0),
    }
    total = int(lines[end].split()[1])
    if total != ran:
        raise VerifierError(f"{lines[end]!r}, the log shows {ran}")
    return reading


def _cases(lines: list[str], reading: Reading) -> int:
    """Results into `reading`; how many tests began (subtests and fixtures of classes are not counted as tests run)."""
    tests, pending, indent = set(), "", ""
    for line in lines:
        if found := _CASE.match(line):
            indent, pending, rest = found[1], found[2], found[3]
            if not indent and not pending.startswith(("setUpClass", "tearDownClass", "setUpModule", "tearDownModule")):
                tests.add(pending)
        else:
            tail = _TAIL.match(line)
            rest = tail[1] if tail else line
        if pending and rest is not None and (outcome := _unittest_outcome(rest)):
            reading.add(pending, outcome)
            if indent:  # a subtest that breaks is all that is told of its test
                reading.beside.append((pending.partition(")")[0] + ")", outcome))
            pending = ""
    return len(tests)


def _unittest_outcome(text: str) -> Outcome | None:
    return "skipped" if re.match(r"skipped\b", text) else _UNITTEST.get(text)
