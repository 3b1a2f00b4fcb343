"""Bug injection: every possible bug of a source file, in a fixed order, so that file, kind and number name one for good."""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arcforge.core.messages import Value
from arcforge.envs.swe.builder.bug_kinds import KINDS
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.layout import LAYOUTS
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.source_text import Edit, Source, first_line, syntax_tree
from arcforge.envs.swe.builder.suite import Entered
from arcforge.sandbox.unified import diff

PER_FUNCTION = 4
TEST_FILES = 4  # a bug's suite: the test files that enter its function most often
LARGEST_FILE = 400_000  # bytes


class Bug(Value):
    """The number-th bug of its kind in a file, counted in source order."""

    path: str
    kind: str
    number: int


@dataclass(frozen=True)
class Site:
    """Where a bug can be made: its function by first line and name."""

    bug: Bug
    edit: Edit
    line: int
    function: str


def sites(path: str, data: bytes, kinds: Iterable[str] = KINDS) -> list[Site]:
    """All bugs of these kinds in a file, in source order. Rejected("syntax") when it is no Python."""
    try:
        source = Source(data)
    except (SyntaxError, ValueError) as error:
        raise Rejected("syntax", f"{path}: {error}") from None
    found: list[Site] = []
    numbers: dict[str, int] = defaultdict(int)
    wanted = [(name, KINDS[name]) for name in kinds]
    for place in source.places():
        for name, kind in wanted:
            for edit in kind(source, place):
                bug = Bug(path=path, kind=name, number=numbers[name])
                numbers[name] += 1
                found.append(Site(bug, edit, first_line(place.function), place.function.name))
    return found


def bug_patches(clone: Clone, commit: str, bug: Bug) -> tuple[bytes, bytes]:
    """(the patch that makes the bug, the patch that mends it).

    Rejected when the file has no such bug, or the edit changes nothing or is no Python.
    """
    text = clone.text(commit, bug.path)
    data = text.encode()
    found = sites(bug.path, data, [bug.kind]) if bug.kind in KINDS else []
    if bug.number >= len(found):
        raise Rejected("no_such_bug", f"{bug.path}: no {bug.kind} number {bug.number}")
    edit = found[bug.number].edit
    wrong = data[: edit.start] + edit.new + data[edit.end :]
    try:
        if ast.dump(syntax_tree(wrong)) == ast.dump(syntax_tree(data)):
            raise Rejected("syntax", "the edit changes nothing")
    except (SyntaxError, ValueError):
        raise Rejected("syntax", "the edit is no Python") from None
    right, broken = {bug.path: text}, {bug.path: wrong.decode()}
    return diff(right, broken).encode(), diff(broken, right).encode()


Chosen = tuple[Bug, tuple[str, ...]]
"""A bug and the test files to run for it."""


def choose(clone: Clone, commit: str, entered: Entered, count: int, rng: random.Random) -> list[Chosen]:
    """`count` bugs in functions that tests enter, with the test files to run; kinds take turns, files and functions vary."""
    tests = _tests_of_functions(entered)
    by_kind: dict[str, list[Site]] = defaultdict(list)
    per_function: dict[tuple[str, int], int] = defaultdict(int)
    found = [
        site
        for path in sorted({path for path, _ in tests if LAYOUTS["python"].side(path) == "source"})
        for site in _sites_of(clone, commit, path)
    ]
    rng.shuffle(found)
    for site in found:
        if (site.bug.path, site.line) in tests:
            by_kind[site.bug.kind].append(site)
    chosen: list[Chosen] = []
    while len(chosen) < count and any(by_kind.values()):
        for kind in KINDS:
            while by_kind[kind]:
                site = by_kind[kind].pop()
                place = (site.bug.path, site.line)
                if per_function[place] < PER_FUNCTION:
                    per_function[place] += 1
                    chosen.append((site.bug, _suite_of(tests[place])))
                    break
    return chosen[:count]


def _sites_of(clone: Clone, commit: str, path: str) -> list[Site]:
    try:
        data = clone.text(commit, path).encode()
        return sites(path, data) if len(data) <= LARGEST_FILE else []
    except Rejected:
        return []


def _tests_of_functions(entered: Entered) -> Mapping[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for test, places in sorted(entered.items()):
        for place in places:
            found[place].append(test)
    return found


def _suite_of(tests: Sequence[str]) -> tuple[str, ...]:
    """Files of the tests, those with most of them first, then in the order of their names."""
    counts: dict[str, int] = defaultdict(int)
    for test in tests:
        counts[test.split("::")[0]] += 1
    return tuple(sorted(sorted(counts, key=lambda file: (-counts[file], file))[:TEST_FILES]))
