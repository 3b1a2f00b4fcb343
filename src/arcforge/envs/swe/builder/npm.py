"""Tarballs of the npm registry: many packages carry their tests."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import Release, get, newest

REGISTRY = "https://registry.npmjs.org"
DOWNLOADS = 8  # at a time
_NAME = re.compile(r"[a-z0-9_.-]+")
_FINAL = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class NpmRegistry:
    """Scoped packages are left out: a repository's name has two parts."""

    index: str = REGISTRY
    _read: dict[str, bytes] = field(default_factory=dict)

    def releases(self, project: str, count: int, last: str = "") -> list[Release]:
        if not _NAME.fullmatch(project):
            raise UserError(f"{project!r}: not the name of a package on the npm registry")
        try:
            held: dict[str, Any] = json.loads(get(f"{self.index}/{project}"))
            times, rows = held["time"], held["versions"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.index}: does not answer as an npm registry does") from None
        final = [version for version in rows if _FINAL.fullmatch(version) and version in times]
        chosen = newest(sorted(final, key=lambda version: tuple(map(int, version.split(".")))), count, last)
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            return list(pool.map(lambda version: self._release(project, rows[version], times[version]), chosen))

    def archive(self, project: str, release: Release) -> bytes:
        return self._read.pop(release.file, None) or get(f"{self.index}/{project}/-/{release.file}")

    def strip(self, root: Path) -> None:
        """Nothing: what a release says of itself is its package.json, which its tests may need."""

    def _release(self, project: str, row: dict[str, Any], time: str) -> Release:
        """The registry tells other hashes: the archive is read for its sha256."""
        name = f"{project}-{row['version']}.tgz"
        raw = self._read[name] = get(f"{self.index}/{project}/-/{name}")
        moment = int(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp())
        return Release(version=row["version"], file=name, sha256=hashlib.sha256(raw).hexdigest(), time=moment)
