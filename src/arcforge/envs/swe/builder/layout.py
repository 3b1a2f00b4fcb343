"""Which paths of a repository are source, tests or neither, by the customs of its language."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from arcforge.core.errors import UserError

Side = Literal["source", "test", "other"]

OTHER_FOLDERS = frozenset(
    {"doc", "docs", "example", "examples", "benchmark", "benchmarks", "bench", "news", "changelog.d", "changelog"}
)
OTHER_SUFFIXES = frozenset({".md", ".rst", ".txt", ".yml", ".yaml", ".toml", ".cfg", ".ini", ".lock", ".in"})
OTHER_NAMES = frozenset({"setup.py", "noxfile.py", "conf.py", "LICENSE", "Makefile", "CHANGES", "CHANGELOG", "AUTHORS"})
_BUILT = frozenset({"dist", "build", "lib-cov", "coverage", "cjs", "esm", "node_modules", "vendor"})
_INDEX = frozenset({"__init__.py", "index.js", "index.mjs", "index.cjs", "index.ts"})


@dataclass(frozen=True)
class Layout:
    """suffixes: of source files. test_file: matches names of files with tests. in_folder: every source file of a test folder is one
    too. support: names that belong to the tests wherever they lie. whole: tests cannot be run by file, only all of them.
    """

    suffixes: frozenset[str]
    test_file: re.Pattern[str]
    test_folders: frozenset[str] = frozenset({"test", "tests"})
    support: frozenset[str] = frozenset()
    other_folders: frozenset[str] = OTHER_FOLDERS
    other_names: frozenset[str] = OTHER_NAMES
    in_folder: bool = False
    whole: bool = False

    def side(self, path: str) -> Side:
        """Where a path belongs. Documentation, packaging and continuous integration are neither source nor tests."""
        place = PurePosixPath(path)
        folders = [part.lower() for part in place.parts[:-1]]
        in_tests = self.test_folders & set(folders) or folders[:1] == ["testing"]
        if in_tests or self.is_test_file(path) or place.name in self.support:
            return "test"
        if any(part.startswith(".") for part in place.parts) or self.other_folders & set(folders):
            return "other"
        top = len(place.parts) == 1
        if place.name in self.other_names or (top and not self.is_source(path)) or place.suffix in OTHER_SUFFIXES:
            return "other"
        return "source"

    def is_test_file(self, path: str) -> bool:
        """Whether it is run as tests by the usual names."""
        place = PurePosixPath(path)
        if self.in_folder and self.is_source(path) and self.test_folders & {part.lower() for part in place.parts[:-1]}:
            return True
        return self.test_file.fullmatch(place.name) is not None

    def is_source(self, path: str) -> bool:
        """Whether it is written in the language."""
        return PurePosixPath(path).suffix in self.suffixes and not path.endswith(".d.ts")


def module(path: str) -> str:
    """The name that tests know a source file by."""
    place = PurePosixPath(path)
    return place.parent.name if place.name in _INDEX else place.stem.strip("_")


_NATIVE = frozenset({"test", "tests", "t", "unittest", "unittests", "testsuite", "regress"})
_SCRIPT = frozenset({"test", "tests", "spec", "__tests__"})
_PYTHON_TESTS = r"test_[^/]*\.py|[^/]*_test\.py|tests?\.py"  # extension modules have theirs in Python
LAYOUTS: dict[str, Layout] = {
    "python": Layout(
        suffixes=frozenset({".py"}), test_file=re.compile(_PYTHON_TESTS), support=frozenset({"conftest.py"}),
    ),
    "c": Layout(
        suffixes=frozenset({".c", ".h"}), test_file=re.compile(rf"(test[_-]?[^/]*|[^/]*[_-]test)\.c|{_PYTHON_TESTS}"),
        test_folders=_NATIVE, in_folder=True, whole=True,
    ),
    "cpp": Layout(
        suffixes=frozenset({".cc", ".cpp", ".cxx", ".h", ".hpp", ".hh", ".hxx", ".inl", ".ipp"}),
        test_file=re.compile(
            rf"(test[_-]?[^/]*|[^/]*[_-](test|unittest))\.(cc|cpp|cxx)|[^/]*_test\.h|[^/]*test\.cpp|{_PYTHON_TESTS}"
        ),
        test_folders=_NATIVE, in_folder=True, whole=True,
    ),
    "go": Layout(
        suffixes=frozenset({".go"}), test_file=re.compile(r"[^/]*_test\.go"), test_folders=frozenset({"testdata"}),
        other_folders=OTHER_FOLDERS | {"vendor", "_examples"},
    ),
    "java": Layout(
        suffixes=frozenset({".java"}), test_file=re.compile(r"(?!Abstract)[^/]*Tests?(Case)?\.java|Test[^/]*\.java"),
        other_names=OTHER_NAMES | {"pom.xml", "build.xml", "package-info.java", "module-info.java"},
    ),
    "javascript": Layout(
        suffixes=frozenset({".js", ".mjs", ".cjs"}),
        test_file=re.compile(r"[^/]*[._-](test|spec)s?\.[mc]?js|(test|tests|spec)\.[mc]?js"), test_folders=_SCRIPT,
        other_folders=OTHER_FOLDERS | _BUILT, in_folder=True,
        other_names=frozenset({"Gruntfile.js", "gulpfile.js", "rollup.config.js", "webpack.config.js", "LICENSE"}),
    ),
    "typescript": Layout(
        suffixes=frozenset({".ts", ".mts", ".cts", ".tsx"}),
        test_file=re.compile(r"[^/]*[._-](test|spec)s?\.[mc]?tsx?|(test|tests|spec)\.ts"), test_folders=_SCRIPT,
        other_folders=OTHER_FOLDERS | _BUILT, in_folder=True,
    ),
    "php": Layout(
        suffixes=frozenset({".php"}), test_file=re.compile(r"[^/]*Test\.php"),
        other_folders=OTHER_FOLDERS | {"vendor"},
    ),
    "ruby": Layout(
        suffixes=frozenset({".rb"}), test_file=re.compile(r"test_[^/]*\.rb|[^/]*[_-](test|spec)\.rb|tc_[^/]*\.rb"),
        test_folders=frozenset({"test", "tests", "spec", "__tests__"}), other_names=frozenset({"Rakefile", "Gemfile", "LICENSE"}),
    ),
}  # fmt: skip
"""By language."""
_SHARED = frozenset({".h"})  # of C and C++ alike


def layout_of(language: str) -> Layout:
    """UserError: no such language."""
    if language not in LAYOUTS:
        near = difflib.get_close_matches(language, LAYOUTS, 1) or sorted(LAYOUTS)
        raise UserError(f"no language {language!r}; the nearest is {near[0]}")
    return LAYOUTS[language]


def language_of(paths: Iterable[str]) -> str:
    """The language of most files with code, tests included. UserError: none that is known."""
    files = list(paths)
    counts = Counter(
        {
            name: sum(PurePosixPath(path).suffix not in _SHARED and layout.is_source(path) for path in files)
            for name, layout in LAYOUTS.items()
        }
    )
    (best, most), *_ = counts.most_common(1)
    if not most:
        raise UserError(f"no file in a language that is known: {', '.join(LAYOUTS)}")
    return best
