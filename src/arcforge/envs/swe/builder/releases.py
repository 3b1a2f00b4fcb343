"""A project's releases as a repository: a commit for each, so that a history can be mined where no clone is.

pypi/NAME, npm/NAME and debian/SOURCE name such repositories, NAME@VERSION those whose newest release is that. The same releases give
the same commits on every machine.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.archives import Release, Source, unpacked
from arcforge.envs.swe.builder.clone import run_git
from arcforge.envs.swe.builder.debian import MIRROR, DebianSources
from arcforge.envs.swe.builder.npm import REGISTRY, NpmRegistry
from arcforge.envs.swe.builder.pypi import INDEX, PackageIndex

SOURCES: dict[str, tuple[str, Callable[[str], Source]]] = {
    "pypi": (INDEX, PackageIndex), "npm": (REGISTRY, NpmRegistry), "debian": (MIRROR, DebianSources),
}  # fmt: skip
"""Owner of repositories that are made of releases -> (its public address, what reads it)."""


def made_of_releases(repository: str) -> bool:
    """Whether a repository (owner/name) needs no clone."""
    return repository.partition("/")[0] in SOURCES


def up_to(name: str) -> tuple[str, str]:
    """(repository, the release after which none is looked at) of OWNER/NAME or OWNER/NAME@VERSION."""
    repository, _, last = name.partition("@")
    return repository, last


def source_of(repository: str, index: str = "") -> tuple[Source, str]:
    """(where the releases of a repository are, the project's name there). index: another address than the public one.

    UserError for a repository that is not made of releases.
    """
    owner, _, project = repository.partition("/")
    if owner not in SOURCES:
        known = ", ".join(f"{name}/NAME" for name in SOURCES)
        raise UserError(f"{repository}: give its clone with --repo, or name a project whose releases are read: {known}")
    public, make = SOURCES[owner]
    return make(index or public), project


def assemble(source: Source, project: str, wanted: Sequence[Release], folder: Path) -> Path:
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
    for release in wanted:
        with tempfile.TemporaryDirectory(prefix="arcforge-release-") as scratch:
            tree = unpacked(release, source.archive(project, release), Path(scratch))
            source.strip(tree)
            shutil.rmtree(tree / ".git", ignore_errors=True)
            _commit(folder, tree, project, release)
    done.write_text(listed)
    return folder


def _commit(repository: Path, tree: Path, project: str, release: Release) -> None:
    """The tree as it is, with fixed names and the upload's time: its sha depends on the archives alone."""
    who = {f"GIT_{role}_{what}": "releases" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": f"{release.time} +0000" for role in ("AUTHOR", "COMMITTER")}
    place = [f"--git-dir={repository}", f"--work-tree={tree}"]
    # Archives of today give every file one time: by what an index remembers, an equally long file of the next release is the old one.
    (repository / "index").unlink(missing_ok=True)
    run_git([*place, "add", "--all", "--force"], cwd=tree)
    message = f"--message={project} {release.version}"
    run_git([*place, "commit", "--quiet", "--allow-empty", message], cwd=tree, environment=who | when)
    run_git(
        [*place, "tag", re.sub(r"[~^:]", "_", release.version)], cwd=tree
    )  # Debian's versions may have what tags may not
