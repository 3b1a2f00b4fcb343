"""Packages of the npm registry as a lock names them, one row each: `node_modules/PATH NAME@VERSION HASH`."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import shutil
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import get
from arcforge.envs.swe.builder.npm import DOWNLOADS, REGISTRY
from arcforge.envs.swe.builder.rejection import Rejected

_CPUS = {"x86_64": "x64", "aarch64": "arm64"}


def lock_rows(lock: Mapping[str, Any]) -> tuple[str, ...]:
    """Rows of a package-lock.json (version 2 or 3), without what is for other machines. Rejected("install"): not of the registry."""
    rows = []
    for path, entry in lock.get("packages", {}).items():
        if not path or not _fits(entry):
            continue
        name = entry.get("name") or path.rpartition("node_modules/")[2]
        if "integrity" not in entry or entry.get("link"):
            raise Rejected("install", f"{name}: not a package of the npm registry")
        rows.append(f"{path} {name}@{entry['version']} {entry['integrity'].split()[-1]}")
    return tuple(sorted(rows))


def unpack_all(rows: Sequence[str], folder: Path, registry: str = REGISTRY) -> None:
    """Every package at its place below `folder`, which is made anew. UserError: one cannot be had or is another than was measured."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "node_modules").mkdir(parents=True)
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        list(pool.map(lambda row: _unpack(row, folder, registry), rows))


def _unpack(row: str, folder: Path, registry: str) -> None:
    place, package, integrity = row.split(" ")
    name, _, version = package.rpartition("@")
    raw = get(f"{registry}/{name}/-/{PurePosixPath(name).name}-{version}.tgz")
    kind, _, wanted = integrity.partition("-")
    if (
        kind not in hashlib.algorithms_guaranteed
        or base64.b64encode(hashlib.new(kind, raw).digest()).decode() != wanted
    ):
        raise UserError(f"{package}: another package than was measured")
    target = folder / place
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for entry in tar:
                inside = PurePosixPath(*PurePosixPath(entry.name).parts[1:])
                if entry.isfile() and inside.parts:
                    entry.name = str(inside)
                    tar.extract(entry, target, filter="data")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{package}: cannot be unpacked: {error}") from None


def _fits(entry: Mapping[str, Any]) -> bool:
    here = {"os": "linux", "cpu": _CPUS.get(platform.machine(), platform.machine()), "libc": "glibc"}
    return all(_allowed(entry.get(kind, ()), value) for kind, value in here.items())


def _allowed(listed: Iterable[str], value: str) -> bool:
    names = [listed] if isinstance(listed, str) else list(listed)
    if f"!{value}" in names:
        return False
    return not [name for name in names if not name.startswith("!")] or value in names
