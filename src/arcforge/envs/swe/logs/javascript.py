"""jest, vitest, mocha and node --test, for JavaScript and TypeScript."""

from __future__ import annotations

import re

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import BROKEN, Outcome, Reading

_TIME = r"(?: \(?[\d.]+ ?m?s\)?)?"
_JEST_FILE = re.compile(r"^(PASS|FAIL) (?:(?:\[[^\]]*\]|[\w-]+) )?(\S+\.\w+)(?: \([\d.]+ m?s\))?$")
_JEST_TEST = re.compile(rf"^( +)([✓✕○✎√×]) (.+?){_TIME}$")
_JEST_MARKS: dict[str, Outcome] = {
    "✓": "passed", "√": "passed", "✕": "failed", "×": "failed", "○": "skipped", "✎": "skipped",
}  # fmt: skip
_JEST_TOTAL = re.compile(r"^(Test Suites|Tests): +(.*?)(\d+)(?: of \d+)? total$")


def jest(lines: list[str]) -> Reading:
    """Id: file > describe > test. A file's results are the block right below its PASS or FAIL; what tests log stands
    elsewhere. A file that could not be loaded is an error with the file's name."""
    reading, file, stack = Reading(), "", list[tuple[int, str]]()
    files, told_files = [0, 0], [0, 0, 0]
    for number, line in enumerate(lines):
        if found := _JEST_FILE.match(line):
            file, stack = found[2], []
            files[found[1] == "FAIL"] += 1
            if any("Test suite failed to run" in text for text in lines[number + 1 : number + 3]):
                reading.beside.append((file, "error"))
        elif found := _JEST_TOTAL.match(line):
            told = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", found[2])}
            if found[1] == "Tests":
                reading.summary = line
                reading.told = {"passed": told.get("passed", 0), "failed": told.get("failed", 0)}
                reading.told["skipped"] = told.get("skipped", 0) + told.get("todo", 0)
            else:
                told_files = [told.get("passed", 0), told.get("failed", 0), told.get("skipped", 0)]
        elif not line.strip():
            file = "" if stack else file
        elif file:
            _jest_line(line, file, stack, reading)
    if reading.summary and files != told_files[:2]:
        raise VerifierError(f"jest tells {told_files[:2]} files passed and failed, the log shows {files}")
    if told_files[2]:
        reading.told.pop("skipped", None)  # files that are skipped as a whole are not listed
    return reading


def _jest_line(line: str, file: str, stack: list[tuple[int, str]], reading: Reading) -> None:
    indent = len(line) - len(line.lstrip(" "))
    if not indent or line.lstrip().startswith("●"):
        return
    while stack and stack[-1][0] >= indent:
        stack.pop()
    if found := _JEST_TEST.match(line):
        names = [name for _, name in stack]
        text = re.sub(r"^(?:skipped|todo) ", "", found[3]) if _JEST_MARKS[found[2]] == "skipped" else found[3]
        reading.add(" > ".join([file, *names, text]), _JEST_MARKS[found[2]])
        stack.append((indent, ""))
    else:
        stack.append((indent, line.strip()))


_VITEST = re.compile(rf"^ *([✓×↓□]) (\S.* > .+?)(?: +[\d.]+ ?m?s)?(?: \[skipped\])?(?: \[[^\]]*\])?{_TIME}$")
_VITEST_TOTAL = re.compile(r"^ *(Test Files|Tests) +(.*) \((\d+)\)$")
_VITEST_ERRORS = re.compile(r"^ *Errors +(\d+) errors?$")
_VITEST_SUITE = re.compile(r"^ *FAIL +(\S+\.\w+) \[ .* \]$")
_VITEST_MARKS: dict[str, Outcome] = {"✓": "passed", "×": "failed", "↓": "skipped", "□": "skipped"}


def vitest(lines: list[str]) -> Reading:
    """The verbose reporter: `✓ file > describe > test 2ms`. Errors outside of tests raise VerifierError."""
    reading = Reading()
    for line in lines:
        if found := _VITEST.match(line):
            reading.add(found[2], _VITEST_MARKS[found[1]])
        elif found := _VITEST_SUITE.match(line):
            reading.beside.append((found[1], "error"))
        elif found := _VITEST_ERRORS.match(line):
            raise VerifierError(f"vitest tells {found[1]} errors outside of tests")
        elif (found := _VITEST_TOTAL.match(line)) and found[1] == "Tests":
            told = {word: int(count) for count, word in re.findall(r"(\d+) ([a-z ]+)", found[2])}
            told = {word.strip(): count for word, count in told.items()}
            reading.summary = line.strip()
            reading.told = {"total": int(found[3]), "passed": told.get("passed", 0) + told.get("expected fail", 0)}
            reading.told["failed"] = told.get("failed", 0)
    return reading


_MOCHA_TEST = re.compile(rf"^( +)(?:([✔✓√-]|\d+\)) )(.+?){_TIME}$")
_MOCHA_TOTAL = re.compile(r"^  (\d+) (passing|failing|pending)(?: \([\d.]+m?s?\))?$")


def mocha(lines: list[str]) -> Reading:
    """The spec reporter. Id: describe > test, by indentation; a hook that failed is a test of the hook's name."""
    reading, stack = Reading(told={"passed": 0, "failed": 0, "skipped": 0}), list[tuple[int, str]]()
    for line in lines:
        if found := _MOCHA_TOTAL.match(line):
            reading.summary = reading.summary or line.strip()
            key = {"passing": "passed", "failing": "failed", "pending": "skipped"}[found[2]]
            reading.told[key] = int(found[1])
        elif line.strip() and line.startswith("  ") and not reading.summary:
            _mocha_line(line, stack, reading)
    return reading


def _mocha_line(line: str, stack: list[tuple[int, str]], reading: Reading) -> None:
    indent = len(line) - len(line.lstrip(" "))
    while stack and stack[-1][0] >= indent:
        stack.pop()
    if found := _MOCHA_TEST.match(line):
        outcome: Outcome = "skipped" if found[2] == "-" else "failed" if found[2].endswith(")") else "passed"
        reading.add(" > ".join([*(name for _, name in stack), found[3]]), outcome)
    else:
        stack.append((indent, line.strip()))


_NODE_TEST = re.compile(r"^( *)([✔✖﹣]) (.+) \([\d.]+ms\)(?: # (.*))?$")
_NODE_GROUP = re.compile(r"^( *)▶ (.+?)( \([\d.]+ms\))?$")
_NODE_TOTAL = re.compile(r"^ℹ (tests|suites|pass|fail|cancelled|skipped|todo) (\d+)$")
_NODE_MARKS: dict[str, Outcome] = {"✔": "passed", "✖": "failed", "﹣": "skipped"}


def node_spec(lines: list[str]) -> Reading:
    """node --test --test-reporter=spec. A group's last line repeats its name: a suite is no test, a test with subtests is
    one, and only the counts tell which of the two there are. Where both are, groups stand beside what is counted."""
    reading, stack, told = Reading(), list[str](), dict[str, int]()
    groups: list[tuple[str, Outcome]] = []
    for line in lines:
        if found := _NODE_TOTAL.match(line):
            told[found[1]] = int(found[2])
        elif told:
            break  # failing tests are listed again below the counts
        elif found := _NODE_GROUP.match(line):
            stack[len(found[1]) // 2 :] = [found[2]] if not found[3] else []
        elif found := _NODE_TEST.match(line):
            level = len(found[1]) // 2
            closes = stack[level : level + 1] == [found[3]]
            stack[level:] = []
            name = " > ".join([*stack, found[3]])
            todo = (found[4] or "").startswith("TODO")
            (groups if closes else reading.results).append((name, "skipped" if todo else _NODE_MARKS[found[2]]))
    if told:
        _node_counts(reading, groups, told)
    return reading


def _node_counts(reading: Reading, groups: list[tuple[str, Outcome]], told: dict[str, int]) -> None:
    suites = told.get("suites", 0)
    if not suites:
        reading.results += groups
    elif suites != len(groups):
        reading.beside = groups
    reading.summary = ", ".join(f"{kind} {count}" for kind, count in told.items())
    tests, broken = told["tests"], told["fail"] + told.get("cancelled", 0)
    reading.told = {"total": tests, BROKEN: broken, "skipped": told["skipped"] + told["todo"]}
    if reading.beside:
        reading.told["total"] -= len(groups) - suites
        shown = sum(outcome == "failed" for _, outcome in reading.results)
        if shown <= broken <= shown + sum(outcome == "failed" for _, outcome in groups):
            del reading.told[BROKEN]
