"""A project's releases on a package index as a repository: a commit for each, so that a history can be mined where no clone is.

The source archives of PyPI carry the tests of many projects. The same releases give the same commits on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.envs.swe.builder.clone import run_git

INDEX = "https://pypi.org/simple"
PREFIX = "pypi/"
"""Owner of repositories that are made of releases: pypi/NAME."""
_SECONDS = 60
_LARGEST = 64 << 20  # bytes of an archive
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class Release(Value):
    """A source archive. time: of its upload, in seconds since the epoch."""

    version: str
    file: str
    sha256: str
    time: int


def project_of(repository: str) -> str:
    """UserError for a repository that is not made of releases."""
    if not repository.startswith(PREFIX):
        raise UserError(f"{repository}: give its clone, or name a project on the package index as {PREFIX}NAME")
    return repository.removeprefix(PREFIX)


def releases(project: str, count: int, python: str, index: str = INDEX) -> list[Release]:
    """The newest `count` final releases with a source archive that say they run on this Python (x.y), oldest first.

    UserError: no such project, or the index does not answer.
    """
    found: dict[Version, Release] = {}
    for row in _files(project, index):
        release = _release(row)
        version = _version(release.version) if release else None
        if release and version and not (version.is_prerelease or row.get("yanked")) and _runs_on(row, python):
            found[version] = release
    return [found[version] for version in sorted(found)][-count:]


def assemble(project: str, wanted: Sequence[Release], folder: Path, index: str = INDEX) -> Path:
    """A bare repository of these releases in `folder`, oldest first, each tagged with its version; one that is complete is taken.

    UserError: an archive cannot be had, is not the one that is wanted or cannot be read.
    """
    folder = folder.resolve()
    done = folder / "releases.json"
    listed = json.dumps([release.model_dump() for release in wanted], indent=1) + "\n"
    if done.exists() and done.read_text() == listed:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_git(["init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(folder)])
    places = {row["filename"]: row["url"] for row in _files(project, index)}
    for release in wanted:
        if release.file not in places:
            raise UserError(f"{project}: the index has no {release.file} any more")
        with tempfile.TemporaryDirectory(prefix="arcforge-release-") as scratch:
            tree = _unpacked(release, _get(places[release.file], _LARGEST), Path(scratch))
            _commit(folder, tree, project, release)
    done.write_text(listed)
    return folder


def _commit(repository: Path, tree: Path, project: str, release: Release) -> None:
    """The tree as it is, with fixed names and the upload's time: its sha depends on the archives alone."""
    who = {f"GIT_{role}_{what}": "releases" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": f"{release.time} +0000" for role in ("AUTHOR", "COMMITTER")}
    place = [f"--git-dir={repository}", f"--work-tree={tree}"]
    run_git([*place, "add", "--all", "--force"], cwd=tree)
    message = f"--message={project} {release.version}"
    run_git([*place, "commit", "--quiet", "--allow-empty", message], cwd=tree, environment=who | when)
    run_git([*place, "tag", release.version], cwd=tree)


def _unpacked(release: Release, archive: bytes, scratch: Path) -> Path:
    """The archive's one folder, without what its build wrote about it: metadata that changes with every release."""
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
    (folders[0] / "PKG-INFO").unlink(missing_ok=True)
    for path in [*folders[0].rglob("*.egg-info"), folders[0] / ".git"]:
        shutil.rmtree(path, ignore_errors=True)
    return folders[0]


def _files(project: str, index: str) -> list[dict[str, Any]]:
    """The index's files of a project (PEP 691)."""
    if not _NAME.fullmatch(project):
        raise UserError(f"{project!r}: not the name of a project on a package index")
    raw = _get(f"{index}/{re.sub(r'[-_.]+', '-', project).lower()}/", 64 << 20)
    try:
        return json.loads(raw)["files"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{index}: does not answer as a package index does (PEP 691)") from None


def _get(url: str, most: int) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json, */*;q=0.1"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            raw = answer.read(most + 1)
    except (OSError, ValueError) as error:
        reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else error
        raise UserError(f"{url}: {reason}") from None
    if len(raw) > most:
        raise UserError(f"{url}: larger than {most >> 20} MiB")
    return raw


def _release(row: dict[str, Any]) -> Release | None:
    name, time = row["filename"], row.get("upload-time")
    if not name.endswith((".tar.gz", ".tgz")) or not time or row.get("size", 0) > _LARGEST:
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
