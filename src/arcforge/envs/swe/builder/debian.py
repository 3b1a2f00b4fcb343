"""Upstream archives of Debian's source packages, a version for each of its suites."""

from __future__ import annotations

import functools
import io
import lzma
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import LARGEST, Release, get, get_if_there, newest

MIRROR = "http://deb.debian.org/debian"
SUITES = (
    "bullseye", "bullseye-backports", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid", "experimental",
)  # fmt: skip
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_ARCHIVE = re.compile(r"^ ([0-9a-f]{64}) (\d+) (\S+\.orig\.tar\.(?:gz|xz|bz2))$", re.M)


@dataclass(frozen=True)
class DebianSources:
    """A suite that is not on the mirror any more has no versions, nor has one of which the archive is gone."""

    index: str = MIRROR
    _read: dict[str, bytes] = field(default_factory=dict)

    def releases(self, project: str, count: int, last: str = "") -> list[Release]:
        if not _NAME.fullmatch(project):
            raise UserError(f"{project!r}: not the name of a Debian source package")
        found: dict[str, Release] = {}
        for suite in SUITES:
            for version, sha256, name in _packages(self.index, suite).get(project, ()):
                if version not in found and (raw := get_if_there(self._address(project, name))) is not None:
                    self._read[name] = raw
                    found[version] = _release(version, sha256, name, raw)
        if not found:
            raise UserError(f"{project}: no Debian source package of that name with an upstream archive")
        return [found[version] for version in newest(sorted(found, key=_order), count, last)]

    def archive(self, project: str, release: Release) -> bytes:
        return self._read.pop(release.file, None) or get(self._address(project, release.file))

    def strip(self, root: Path) -> None:
        """Nothing: upstream archives hold no such metadata."""

    def _address(self, project: str, name: str) -> str:
        letter = project[:4] if project.startswith("lib") else project[0]
        return f"{self.index}/pool/main/{letter}/{project}/{name}"


def _release(version: str, sha256: str, name: str, raw: bytes) -> Release:
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            time = max(int(entry.mtime) for entry in tar)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{name}: cannot be unpacked: {error}") from None
    return Release(version=version, file=name, sha256=sha256, time=time)


def _order(version: str) -> list[tuple[int, str]]:
    """Numbers by value; what stands between them decides where they are the same."""
    return [(int(number or -1), word) for word, number in re.findall(r"(\D*)(\d*)", version)]


@functools.lru_cache(maxsize=len(SUITES))
def _packages(index: str, suite: str) -> dict[str, list[tuple[str, str, str]]]:
    """Source package -> (upstream version, sha256, file) of its archives in a suite, oldest first as the suite lists them."""
    if (packed := get_if_there(f"{index}/dists/{suite}/main/source/Sources.xz")) is None:
        return {}
    try:
        text = lzma.decompress(packed).decode(errors="replace")
    except lzma.LZMAError:
        raise UserError(f"{index}: {suite} has no list of sources that can be read") from None
    found: dict[str, list[tuple[str, str, str]]] = {}
    for stanza in text.split("\n\n"):
        name, version = re.search(r"^Package: (\S+)$", stanza, re.M), re.search(r"^Version: (\S+)$", stanza, re.M)
        archive = _ARCHIVE.search(stanza)
        if name and version and archive and int(archive[2]) <= LARGEST:
            upstream = version[1].partition(":")[2] or version[1]
            found.setdefault(name[1], []).append((upstream.rpartition("-")[0] or upstream, archive[1], archive[3]))
    return found
