"""parse(name, log): one interface over the log parsers. Which tool and which of its options a name stands for:

    pytest -v | -rA        unittest -v (Django's runner too)      junit: JUnit XML files, one after another
    maven (surefire's console)   gradle (testLogging events passed, skipped, failed)
    go test -v             go-json: go test -json                 ctest       googletest
    automake: make check   tape: its TAP, a test for each comment
    jest --verbose         vitest --reporter=verbose              mocha (spec)
    node-spec, tap: node --test with either reporter              phpunit --testdox
    minitest -v            rspec --format documentation           test-unit --verbose=verbose

A program under test shares the log with its test runner. What it prints may look like a result; then the counts do not
agree, and that is an error. A whole forged run that is consistent in itself cannot be told from a log: let `marked`
bracket the run, with a nonce that the program does not know, and give the exit code.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.swe.logs import cplusplus, golang, java, javascript, junit, php, python, ruby, tap
from arcforge.envs.swe.logs.reading import Outcome, Reading, SuiteReport, settle

PARSERS: dict[str, Callable[[list[str]], Reading]] = {
    "pytest": python.pytest,
    "unittest": python.unittest,
    "junit": junit.junit,
    "maven": java.maven,
    "gradle": java.gradle,
    "go": golang.go_test,
    "go-json": golang.go_json,
    "ctest": cplusplus.ctest,
    "googletest": cplusplus.googletest,
    "automake": cplusplus.automake,
    "jest": javascript.jest,
    "vitest": javascript.vitest,
    "mocha": javascript.mocha,
    "node-spec": javascript.node_spec,
    "tap": tap.tap,
    "tape": tap.tape,
    "phpunit": php.phpunit,
    "minitest": ruby.minitest,
    "rspec": ruby.rspec,
    "test-unit": ruby.test_unit,
}
LANGUAGES: dict[str, tuple[str, ...]] = {
    "python": ("pytest", "unittest", "junit"),
    "java": ("maven", "gradle", "junit"),
    "go": ("go", "go-json"),
    "c": ("ctest", "automake", "tap"),
    "cpp": ("googletest", "ctest", "automake", "junit"),
    "javascript": ("jest", "vitest", "mocha", "node-spec", "tap", "tape"),
    "typescript": ("jest", "vitest", "mocha", "node-spec", "tap", "tape"),
    "php": ("phpunit", "junit"),
    "ruby": ("minitest", "rspec", "test-unit"),
}
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_START, _END = "suite-start", "suite-end"


def parse(name: str, log: str, exit_code: int | None = None) -> Mapping[str, Outcome]:
    """Outcome by test id. VerifierError: the log does not say. UserError: no parser of that name."""
    return report(name, log, exit_code).tests


def report(name: str, log: str, exit_code: int | None = None) -> SuiteReport:
    """The same with its evidence. exit_code: of the test command, held against the outcomes; None: not known."""
    if name not in PARSERS:
        near = difflib.get_close_matches(name, PARSERS, 1) or sorted(PARSERS)
        raise UserError(f"no log parser {name!r}; the nearest is {near[0]}")
    return settle(PARSERS[name](lines(log)), exit_code)


def lines(log: str) -> list[str]:
    """Lines without colours; of a line that was written over, what stood there last."""
    plain = _ESCAPE.sub("", log)
    return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in plain.split("\n")]


def bracket(command: str, nonce: str) -> str:
    """A shell line that runs `command` between two marks and tells its exit code in the second."""
    start, end = f"{_START} {nonce}", f"{_END} {nonce}"
    return f"echo '{start}'; ( {command} ) 2>&1; code=$?; echo; echo '{end}' $code"


def marked(log: str, nonce: str) -> tuple[str, int]:
    """(what stands between the marks, exit code). VerifierError: not exactly one of each, in order."""
    pattern = re.compile(rf"^{_START} {re.escape(nonce)}$\n(.*)^{_END} {re.escape(nonce)} (\d+)$", re.M | re.S)
    found = pattern.search(log)
    if found is None or log.count(nonce) != 2:
        raise VerifierError("the marks around the test command are not in the log exactly once")
    return found[1], int(found[2])
