"""Source archives of releases, and where they come from."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from arcforge.core.errors import UserError
from arcforge.core.messages import Value

LARGEST = 64 << 20  # bytes of an archive
_SECONDS = 60


class Release(Value):
    """A source archive. time: of its upload or its newest file, in seconds since the epoch."""

    version: str
    file: str
    sha256: str
    time: int


class Source(Protocol):
    """A place that has projects' releases."""

    def releases(self, project: str, count: int, last: str = "") -> list[Release]:
        """The newest `count` final releases with a source archive, oldest first, up to `last` if that is given. UserError: no such
        project or release, or no answer."""
        ...

    def archive(self, project: str, release: Release) -> bytes:
        """UserError: it is not there any more."""
        ...

    def strip(self, root: Path) -> None:
        """Delete from an unpacked archive the metadata that changes with every release."""
        ...


def newest(versions: Sequence[str], count: int, last: str) -> list[str]:
    """The `count` newest of versions that are oldest first, up to `last` or to the end. UserError: `last` is none of them."""
    if last and last not in versions:
        raise UserError(f"no release {last}, there are {', '.join(versions[-3:])} and {len(versions[:-3])} before")
    return list(versions[: versions.index(last) + 1 if last else None][-count:])


def get(url: str, most: int = LARGEST) -> bytes:
    """What stands at an address. UserError: nothing, no answer, or more than `most` bytes."""
    if (raw := get_if_there(url, most)) is None:
        raise UserError(f"{url}: HTTP 404")
    return raw


def get_if_there(url: str, most: int = LARGEST) -> bytes | None:
    """The same; None where nothing stands."""
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json, */*;q=0.1"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            raw = answer.read(most + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 404:
            return None
        reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else error
        raise UserError(f"{url}: {reason}") from None
    if len(raw) > most:
        raise UserError(f"{url}: larger than {most >> 20} MiB")
    return raw


def unpacked(release: Release, archive: bytes, scratch: Path) -> Path:
    """The one folder of an archive, under `scratch`. UserError: it is another archive, or cannot be read."""
    if hashlib.sha256(archive).hexdigest() != release.sha256:
        raise UserError(f"{release.file}: another archive than was measured")
    packed = scratch / "archive"
    packed.write_bytes(archive)
    try:
        with tarfile.open(packed) as tar:
            tar.extractall(scratch / "tree", filter="data")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{release.file}: cannot be unpacked: {error}") from None
    folders = [path for path in (scratch / "tree").iterdir() if path.is_dir()]
    if len(folders) != 1:
        raise UserError(f"{release.file}: {len(folders)} folders at its top, not one")
    return folders[0]
