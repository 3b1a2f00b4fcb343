"""JUnit's XML, as surefire, gradle, pytest, phpunit, googletest and ctest write it; several files one after another."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from arcforge.core.errors import VerifierError
from arcforge.envs.swe.logs.reading import Outcome, Reading


def junit(lines: list[str]) -> Reading:
    """Id: classname::name, or the name alone. Every suite's own counts are held against its test cases."""
    reading = Reading()
    suites = 0
    for document in _documents("\n".join(lines)):
        root = _root(document)
        outer = [root] if root.tag == "testsuite" else root.findall("testsuite")
        suites += len(outer)
        for suite in outer:
            _check_suite(suite)
            for case in suite.iter("testcase"):
                reading.add(*_case(case))
    reading.summary = f"{suites} test suites" if suites else ""
    return reading


def _documents(text: str) -> list[str]:
    if re.search(r"<!(DOCTYPE|ENTITY)", text):
        raise VerifierError("a JUnit report with a document type is not read")
    pieces = re.split(r"<\?xml[^>]*\?>", text)
    return [piece.strip() for piece in pieces if piece.strip()]


def _root(document: str) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise VerifierError(f"a JUnit report that is no XML: {error}") from None
    if root.tag not in ("testsuite", "testsuites"):
        raise VerifierError(f"<{root.tag}> is no JUnit report")
    return root


def _case(case: ElementTree.Element) -> tuple[str, Outcome]:
    group = case.get("classname") or case.get("class") or ""
    name = f"{group}::{case.get('name', '')}" if group else case.get("name", "")
    children = {child.tag for child in case}
    if "error" in children:
        return name, "error"
    if "failure" in children:
        return name, "failed"
    skipped = "skipped" in children or case.get("status") in ("notrun", "disabled")
    return name, "skipped" if skipped else "passed"


def _check_suite(suite: ElementTree.Element) -> None:
    outcomes = [_case(case)[1] for case in suite.iter("testcase")]
    told, found = suite.get("tests"), len(outcomes)
    if told is not None and int(told) != found:
        raise VerifierError(f"the suite {suite.get('name')!r} tells {told} tests, the report shows {found}")
    broken = [int(suite.get(kind) or 0) for kind in ("failures", "errors")]
    shown = sum(outcome in ("failed", "error") for outcome in outcomes)
    if suite.get("failures") is not None and sum(broken) != shown:
        raise VerifierError(
            f"the suite {suite.get('name')!r} tells {sum(broken)} broken tests, the report shows {shown}"
        )
