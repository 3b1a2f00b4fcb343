"""Generated repositories: one to three modules of one-line functions, one of them wrong, and tests that can tell."""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from arcforge.core.tasks import Split
from arcforge.core.words import NAMES

EXPRESSIONS: dict[str, Callable[[int, int], int]] = {
    "a+b": operator.add,
    "a-b": operator.sub,
    "a*b": operator.mul,
    "max(a,b)": max,
    "min(a,b)": min,
}
TEST_FILE = "test.py"
PASSED = "ok"
_NAMES = tuple(name for name in NAMES if name != "wave")  # a module of the standard library
_BUCKETS: dict[Split, range] = {"train": range(8), "dev": range(8, 9), "test": range(9, 10)}


@dataclass(frozen=True)
class Function:
    """shown: the expression in the file; right: the one the tests want (the same but for the bug)."""

    name: str
    shown: str
    right: str


@dataclass(frozen=True)
class Module:
    name: str
    functions: tuple[Function, ...]

    @property
    def path(self) -> str:
        return f"{self.name}.py"

    @property
    def text(self) -> str:
        return "".join(f"def {f.name}(a,b):\n    return {f.shown}\n" for f in self.functions)


@dataclass(frozen=True)
class Case:
    """One assertion of the test file."""

    module: str
    function: str
    a: int
    b: int
    want: int

    @property
    def call(self) -> str:
        return f"{self.function}({self.a},{self.b})"


@dataclass(frozen=True)
class Repository:
    """modules and cases in file order. The bug is the first function of module `bug_module`, so that replacing the first
    occurrence of an expression in that file always hits it."""

    modules: tuple[Module, ...]
    cases: tuple[Case, ...]
    bug_module: int

    @property
    def bug_file(self) -> str:
        return self.modules[self.bug_module].path

    @property
    def bug(self) -> Function:
        return self.modules[self.bug_module].functions[0]

    @cached_property
    def files(self) -> dict[str, str]:
        """Relative path -> text, the test file included."""
        imports = [f"from {m.name} import {f.name}" for m in self.modules for f in m.functions]
        asserts = [f"assert {case.call}=={case.want}" for case in self.cases]
        return {**{m.path: m.text for m in self.modules}, TEST_FILE: "\n".join([*imports, *asserts]) + "\n"}

    def test_answer(self, expressions: Mapping[str, str]) -> str:
        """What the `test` tool answers when the functions in `expressions` (name -> expression) replace the shown ones."""
        shown = {f.name: f.shown for m in self.modules for f in m.functions} | dict(expressions)
        for case in self.cases:
            got = EXPRESSIONS[shown[case.function]](case.a, case.b)
            if got != case.want:
                return failure_line(case.module, case.call, got, case.want)
        return PASSED


def failure_line(module: str, call: str, got: object, want: object) -> str:
    """The `test` tool's answer for a failing case."""
    return f"{module}.py {call}={got} want {want}"


def generate(rng: random.Random, split: Split) -> Repository:
    """A repository whose bug (file, function, wrong and right expression) belongs to `split` by its hash."""
    module, function, shown, right = _draw_bug(rng, split)
    spare = _spare_names(rng, {module, function})
    count = rng.randint(1, 3)
    modules, bug_module = [], rng.randrange(count)
    for index in range(count):
        first = Function(function, shown, right) if index == bug_module else _correct(rng, next(spare))
        functions = [first]
        if rng.random() < 0.3:
            functions.append(_correct(rng, next(spare)))
        modules.append(Module(module if index == bug_module else next(spare), tuple(functions)))
    cases = [case for m in modules for f in m.functions for case in _cases(rng, m.name, f)]
    return Repository(tuple(modules), tuple(cases), bug_module)


def split_of(module: str, function: str, shown: str, right: str) -> Split:
    """The one split a bug belongs to, whatever the seed."""
    digest = hashlib.blake2b(f"{module}/{function}/{shown}/{right}".encode(), digest_size=4).digest()
    bucket = int.from_bytes(digest) % 10
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def _draw_bug(rng: random.Random, split: Split) -> tuple[str, str, str, str]:
    expressions = list(EXPRESSIONS)
    while True:
        module, function = rng.sample(_NAMES, 2)
        shown, right = rng.sample(expressions, 2)
        if split_of(module, function, shown, right) == split:
            return module, function, shown, right


def _spare_names(rng: random.Random, taken: set[str]) -> Iterator[str]:
    """Names that are not taken: eight drawn at random, and the others in order for the few repositories that use those up."""
    drawn = rng.sample(_NAMES, 8)
    others = [name for name in _NAMES if name not in drawn]
    return (name for name in [*reversed(drawn), *others] if name not in taken)


def _correct(rng: random.Random, name: str) -> Function:
    expression = rng.choice(list(EXPRESSIONS))
    return Function(name, expression, expression)


def _cases(rng: random.Random, module: str, function: Function) -> list[Case]:
    """Two cases that tell the right expression from every other one if the function is wrong, else one case."""
    right = EXPRESSIONS[function.right]
    count = 1 if function.shown == function.right else 2
    while True:
        pairs = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(count)]
        others = [other for text, other in EXPRESSIONS.items() if text != function.right]
        if count == 1 or all(any(other(*pair) != right(*pair) for pair in pairs) for other in others):
            return [Case(module, function.name, a, b, right(a, b)) for a, b in pairs]
