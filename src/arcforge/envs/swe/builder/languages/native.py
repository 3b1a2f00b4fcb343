"""C and C++: configured and built in the checkout with CMake or the GNU tools, all tests at once by ctest or make check (those of
extension modules: languages.extension)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages import extension
from arcforge.envs.swe.builder.languages.debian_packages import check, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.rejection import Rejected

_OFF = re.compile(r"^\s*option\s*\(\s*(\w*TESTS?\w*)\s+.*?\bOFF\s*\)", re.I | re.M | re.S)
_LESS = re.compile(r"FUZZ|VALGRIND|COVERAGE|WITHOUT|DISABLE|SKIP|NO_", re.I)  # switches that are not for more tests
_FLAGS = "-O0 -w"
_PLACE = "/tmp/arcforge-build"
_REPORTS = "/tmp/arcforge-reports"
# A release's configure must not be made again: git keeps no times, so what is generated is made newer than what it comes from.
_FRESH = (
    "find . -type f -exec touch -d @1000000000 {} +; find . -name '*.m4' -exec touch -d @1000000010 {} +; "
    "find . -name aclocal.m4 -exec touch -d @1000000020 {} +; "
    "find . '(' -name configure -o -name config.h.in -o -name config.hin ')' -exec touch -d @1000000030 {} +; "
    "find . -name Makefile.in -exec touch -d @1000000040 {} +"
)


def install(
    language: str, clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None
) -> Scripted:
    """Nothing is installed: compilers and libraries are Debian's. Rejected("install"): no build system that is known here."""
    if extension.is_extension(clone, commit):
        return extension.install(language, clone, commit, folder, requirements)
    options = _options(clone, commit)
    tools = {"cmake": ("cmake",), "make": ("automake", "autoconf", "libtool", "pkg-config")}[options[0]]
    if requirements is not None:
        check(requirements)
    wanted = tuple(requirements) if requirements is not None else rows_of(["gcc", "g++", "make", "libc6-dev", *tools])
    return Scripted(language, _plan, wanted, options, (), commit)


def _options(clone: Clone, commit: str) -> tuple[str, ...]:
    """("cmake", switches that turn tests on ...) or ("make", how configure is had)."""
    paths = set(clone.paths(commit))
    if "CMakeLists.txt" in paths:
        lists = [path for path in paths if path.endswith(("CMakeLists.txt", ".cmake"))]
        text = "\n".join(clone.text(commit, path) for path in sorted(lists))
        if re.search(
            r"\b(add_test|enable_testing|gtest_discover_tests|catch_discover_tests)\b|include\s*\(\s*CTest", text, re.I
        ):
            return "cmake", *sorted({f"-D{name}=ON" for name in _OFF.findall(text) if not _LESS.search(name)})
    if "configure.ac" in paths or "configure.in" in paths or "configure" in paths:
        return ("make",)
    raise Rejected("install", "neither CMake's tests nor a configure script")


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    kind, *switches = options
    environment = (("CFLAGS", _FLAGS), ("CXXFLAGS", _FLAGS), ("GTEST_OUTPUT", f"xml:{_REPORTS}/"))
    if kind == "cmake":
        configure = f"cmake -S . -B {_PLACE} -DBUILD_TESTING=ON -DCMAKE_BUILD_TYPE= {' '.join(switches)}"
        build = f"{{ [ -f {_PLACE}/Makefile ] || {configure}; }} && make -C {_PLACE} -j2"
        # A program of googletest's may be one test of ctest's; its report tells its own tests apart.
        reports = f"cat {_REPORTS}/*.xml && ! grep -q '<failure' {_REPORTS}/*.xml"
        ctest = f"rm -rf {_REPORTS}; cd {_PLACE} && ctest --timeout 60"
        return Plan(build, (Run("ctest", ctest, "ctest"), Run("googletest", reports, "junit")), environment)
    configure = (
        f"{{ [ -f config.status ] || {{ {_FRESH}; {{ [ -f configure ] && chmod +x configure; }} || autoreconf -fi; "
        "./configure --disable-shared; }; }"
    )
    build = f"{configure} && make -j2 && make -j2 check TESTS="
    return Plan(build, (Run("check", "make -k check", "automake"),), environment)
