"""Source archives of a Python package index."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import LARGEST, Release, get, newest

INDEX = "https://pypi.org/simple"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class PackageIndex:
    """Releases that say they run on this Python (x.y). They carry the tests of many projects."""

    index: str = INDEX
    python: str = ".".join(map(str, sys.version_info[:2]))
    _places: dict[str, dict[str, str]] = field(default_factory=dict)

    def releases(self, project: str, count: int, last: str = "") -> list[Release]:
        found: dict[Version, Release] = {}
        for row in _files(project, self.index):
            release = _release(row)
            version = _version(release.version) if release else None
            if release and version and not (version.is_prerelease or row.get("yanked")) and _runs_on(row, self.python):
                found[version] = release
        rows = {found[version].version: found[version] for version in sorted(found)}
        return [rows[version] for version in newest(list(rows), count, last)]

    def archive(self, project: str, release: Release) -> bytes:
        if project not in self._places:
            self._places[project] = {row["filename"]: row["url"] for row in _files(project, self.index)}
        if release.file not in self._places[project]:
            raise UserError(f"{project}: the index has no {release.file} any more")
        return get(self._places[project][release.file])

    def strip(self, root: Path) -> None:
        (root / "PKG-INFO").unlink(missing_ok=True)
        for path in root.rglob("*.egg-info"):
            shutil.rmtree(path, ignore_errors=True)


def _files(project: str, index: str) -> list[dict[str, Any]]:
    """The index's files of a project (PEP 691)."""
    if not _NAME.fullmatch(project):
        raise UserError(f"{project!r}: not the name of a project on a package index")
    raw = get(f"{index}/{re.sub(r'[-_.]+', '-', project).lower()}/")
    try:
        return json.loads(raw)["files"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index}: does not answer as a package index does (PEP 691)") from None


def _release(row: dict[str, Any]) -> Release | None:
    name, time = row["filename"], row.get("upload-time")
    if not name.endswith((".tar.gz", ".tgz")) or not time or row.get("size", 0) > LARGEST:
        return None
    moment = int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp())
    version = name.removesuffix(".tgz").removesuffix(".tar.gz").rpartition("-")[2]
    return Release(version=version, file=name, sha256=row["hashes"].get("sha256", ""), time=moment)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _runs_on(row: dict[str, Any], python: str) -> bool:
    try:
        return SpecifierSet(row.get("requires-python") or "").contains(f"{python}.0")
    except InvalidSpecifier:
        return True
