"""Go with the libraries that Debian has as source in /usr/share/gocode: packages of the chosen test files, without modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from shlex import quote

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.languages.debian_packages import check, owners, rows_of
from arcforge.envs.swe.builder.languages.scripted import Plan, Run, Scripted
from arcforge.envs.swe.builder.rejection import Rejected

_LIBRARIES = Path("/usr/share/gocode/src")
_IMPORT = re.compile(r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([\w.-]+\.\w+/[\w./-]+)"', re.M)
_PLACE = "/tmp/go"
_ENVIRONMENT = (
    ("GOPATH", f"{_PLACE}:/usr/share/gocode"), ("GO111MODULE", "off"), ("GOCACHE", "/tmp/go-cache"), ("GOFLAGS", "-vet=off"),
    ("CGO_ENABLED", "0"),
)  # fmt: skip


def install(clone: Clone, commit: str, folder: Path, requirements: Sequence[str] | None = None) -> Scripted:
    """Nothing is installed. Rejected("install"): no import path is told, or Debian's libraries lack one that is imported."""
    if requirements is not None:
        check(requirements)
    path = _import_path(clone, commit)
    wanted = tuple(requirements) if requirements is not None else _needed(clone, commit, path)
    return Scripted("go", _plan, wanted, (path, _program(wanted)), (), commit)


def _newest() -> str:
    """The package of the newest Go. UserError: there is none."""
    found = [
        int(path.name.partition("1.")[2]) for path in Path("/usr/lib").glob("go-1.*") if (path / "bin/go").exists()
    ]
    if not found:
        raise UserError("Go is not installed: apt-get install golang-go")
    return f"golang-1.{max(found)}-go"


def _program(requirements: Sequence[str]) -> str:
    """Of the Go that the requirements name."""
    names = [row.removeprefix("debian:").partition("=")[0] for row in requirements]
    version = next(name.split("-")[1] for name in names if re.fullmatch(r"golang-1\.\d+-go", name))
    return f"/usr/lib/go-{version}/bin/go"


def _import_path(clone: Clone, commit: str) -> str:
    if "go.mod" in clone.paths(commit) and (found := re.search(r"^module\s+(\S+)", clone.text(commit, "go.mod"), re.M)):
        return found[1].strip('"')
    raise Rejected("install", "no go.mod tells the import path")


def _needed(clone: Clone, commit: str, own: str) -> tuple[str, ...]:
    """The toolchain and the packages that hold what is imported."""
    sources = [path for path in clone.paths(commit) if path.endswith(".go") and "testdata" not in path.split("/")]
    imported = {name for path in sources for name in _IMPORT.findall(clone.text(commit, path))}
    outside = sorted(name for name in imported if name != own and not name.startswith(f"{own}/"))
    return rows_of([_newest(), *owners(_LIBRARIES / name for name in outside)])


def _plan(options: tuple[str, ...], folders: tuple[Path, ...], tests: Sequence[str]) -> Plan:
    """Packages of the tests one by one. All are compiled once, so that every run finds most of them in Go's cache."""
    path, program = options
    place = f"{_PLACE}/src/{path}"
    # The checkout is the package's place itself: what a patch changes lies in both.
    build = (
        f'if [ ! -e {place} ]; then mkdir -p $(dirname {place}); ln -s "$PWD" {place}; '
        f"cd {place}; {program} test -exec true ./... ; fi; true"
    )
    names = sorted({str(PurePosixPath(test).parent) for test in tests})
    runs = [
        Run(
            name,
            f"cd {place} && {program} test -v -timeout 100s {quote('./' + name)}",
            "go",
            path if name == "." else f"{path}/{name}",
        )
        for name in names
    ]
    return Plan(build, tuple(runs), _ENVIRONMENT)
