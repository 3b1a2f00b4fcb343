"""Which tests fail before and pass after, measured twice: FAIL_TO_PASS and PASS_TO_PASS, and what makes a pair valid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcforge.core.messages import Value
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.logs.reading import Outcome

REPEATS = 2


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite. failed: tests that failed or broke. broken: files that could not be collected."""

    passed: frozenset[str]
    failed: frozenset[str]
    broken: frozenset[str]

    @classmethod
    def of(cls, outcomes: Mapping[str, Outcome]) -> SuiteRun:
        wrong = frozenset(name for name, outcome in outcomes.items() if outcome in ("failed", "error"))
        failed = frozenset(name for name in wrong if "::" in name)
        passed = frozenset(name for name, outcome in outcomes.items() if outcome == "passed")
        return cls(passed, failed, wrong - failed)

    def fails(self, name: str) -> bool:
        """Whether a test is known not to pass: it failed, or its file could not be collected."""
        return name in self.failed or name.split("::")[0] in self.broken


class Measured(Value):
    """Sorted test names. flaky: tests that came out differently in runs of the same code; they are in neither list."""

    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    flaky: tuple[str, ...] = ()


def test_lists(measured: Measured) -> dict[str, Any]:
    """A manifest row's fields of what was measured."""
    return {
        "fail_to_pass": measured.fail_to_pass,
        "pass_to_pass": len(measured.pass_to_pass),
        "pass_to_pass_sha256": names_sha256(measured.pass_to_pass),
    }


def measure(gold: Callable[[], SuiteRun], before: Callable[[], SuiteRun]) -> Measured:
    """Run both states REPEATS times and compare. Rejected when no test fails before and passes after, or none stays whole.

    The first runs decide whether the rest is worth its time.
    """
    befores = [before()]
    if not befores[0].failed and not befores[0].broken:
        raise Rejected("no_fail_to_pass", "no test fails before")
    golds = [gold()]
    compare(golds, befores)
    for _ in range(REPEATS - 1):
        golds.append(gold())
        befores.append(before())
    return compare(golds, befores)


def compare(golds: Sequence[SuiteRun], befores: Sequence[SuiteRun]) -> Measured:
    """What every run agrees on. A test that was skipped before does not count as failing."""
    always, ever = _inside([run.passed for run in golds]), _any([run.passed for run in golds])
    kept, seen = _inside([run.passed for run in befores]), _any([run.passed for run in befores])
    flaky = (ever - always) | (seen - kept)
    fails = {name for name in always - seen if all(run.fails(name) for run in befores)}
    if not ever:
        raise Rejected("gold_fails", "no test passes with the solution")
    if not fails:
        raise Rejected("flaky" if flaky else "no_fail_to_pass", "no test fails before and passes after")
    if not (passes := (always & kept) - flaky):
        raise Rejected("no_pass_to_pass", "no test passes before and after")
    return Measured(fail_to_pass=tuple(sorted(fails)), pass_to_pass=tuple(sorted(passes)), flaky=tuple(sorted(flaky)))


def resolved(run: SuiteRun, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]) -> bool:
    """Whether a run passes a task. Rejected for a task without FAIL_TO_PASS, which any run would pass."""
    if not fail_to_pass:
        raise Rejected("no_fail_to_pass", "the task has no test that must be mended")
    return run.passed.issuperset(fail_to_pass) and run.passed.issuperset(pass_to_pass)


def names_sha256(names: Iterable[str]) -> str:
    """One hash for a set of test names, one a line, sorted."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(set(names))).encode()).hexdigest()


def _inside(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    return frozenset.intersection(*sets)


def _any(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    return frozenset.union(*sets)
