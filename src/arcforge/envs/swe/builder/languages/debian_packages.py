"""Debian packages that a suite needs, as rows `debian:NAME=VERSION`. They are looked up, never installed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.sandbox.host import tell_once

_PREFIX = "debian:"


def rows_of(names: Iterable[str]) -> tuple[str, ...]:
    """Rows of installed packages. UserError names those that are missing, and how they are installed."""
    names = sorted(set(names))
    found = {name: version for name in names if (version := _version(name))}
    if missing := [name for name in names if name not in found]:
        raise UserError(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    return tuple(f"{_PREFIX}{name}={version}" for name, version in found.items())


def check(rows: Sequence[str]) -> None:
    """UserError: a package of the rows is missing. Another version is told once; what is measured shows whether it matters."""
    wanted = dict(row.removeprefix(_PREFIX).split("=", 1) for row in rows if row.startswith(_PREFIX))
    here = dict(row.removeprefix(_PREFIX).split("=", 1) for row in rows_of(wanted))
    for name, version in wanted.items():
        if here[name] != version:
            tell_once(f"{name}: measured with {version}, this machine has {here[name]}")


def owners(paths: Iterable[Path]) -> set[str]:
    """Packages that files or folders belong to; those that are not there or of no package are left out."""
    there = sorted(str(path) for path in paths if path.exists())
    done = _query("-S", *there) if there else ""
    return {line.split(":")[0] for line in done.splitlines() if ": " in line and "," not in line.split(":")[0]}


def _version(name: str) -> str:
    status, _, version = _query("-W", "-f=${db:Status-Status} ${Version}\n", name).partition("\n")[0].partition(" ")
    return version if status == "installed" else ""


def _query(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["dpkg-query", *arguments], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except FileNotFoundError:
        raise UserError("dpkg-query is not installed: these languages are measured on Debian alone") from None
