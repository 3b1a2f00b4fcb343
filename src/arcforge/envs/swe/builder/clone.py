"""A clone read through git's plumbing: commits, trees, patches. Nothing is written into it, and a bare one will do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.rejection import Rejected

SECONDS = 120
_SETTINGS = {"safe.directory": "*", "core.quotePath": "false", "core.autocrlf": "false", "core.fsmonitor": "false"}
# Every choice that changes the bytes of a patch is fixed: the manifest holds their hash.
_DIFF = (
    "diff", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=3",
    "--src-prefix=a/", "--dst-prefix=b/", "--diff-algorithm=myers", "--no-indent-heuristic",
)  # fmt: skip
APPLY = ("apply", "--whitespace=nowarn")
_LOG = ("log", "-z", "--no-merges", "--no-renames", "--name-status", "--format=%x01%H%x02%P%x02%ct%x02%B%x02")


@dataclass(frozen=True)
class Change:
    """status: "A" added, "M" modified, "D" deleted, "T" type changed."""

    status: str
    path: str


@dataclass(frozen=True)
class Commit:
    """A commit with one parent. time: seconds since the epoch."""

    sha: str
    parent: str
    time: int
    message: str
    changes: tuple[Change, ...]


class Clone:
    """Reads a git repository at `path` (work tree or bare). UserError when there is none."""

    def __init__(self, path: Path) -> None:
        found = path / ".git" if (path / ".git").is_dir() else path
        self.path = found.resolve()
        if not (self.path / "objects").is_dir():
            raise UserError(f"{path}: not a git repository; clone it first and give its folder")

    def head(self) -> str:
        """The commit that HEAD names, else the newest of any branch."""
        try:
            return self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip()
        except Rejected:
            newest = ("for-each-ref", "--count=1", "--sort=-committerdate", "--format=%(objectname)", "refs/heads")
            if not (sha := self._git(*newest).decode().strip()):
                raise UserError(f"{self.path}: the repository has no commit") from None
            return sha

    def version(self, commit: str) -> str:
        """What tools that read the version from tags would need: the newest release tag before the commit, else 0.0.0."""
        try:
            tag = self._git("describe", "--tags", "--abbrev=0", "--match=*[0-9]*", commit).decode().strip()
        except Rejected:
            return "0.0.0"
        number = tag[next(i for i, letter in enumerate(tag) if letter.isdigit()) :]
        return number if all(part.isdigit() for part in number.split(".")) else "0.0.0"

    def commits(self, limit: int, until: str = "HEAD") -> list[Commit]:
        """The newest `limit` commits with exactly one parent, newest first."""
        found = _read_log(self._git(*_LOG, f"--max-count={limit}", until).decode(errors="replace"))
        return [commit for commit in found if " " not in commit.parent and commit.parent]

    def shas(self) -> frozenset[str]:
        """Of all commits that a branch or a tag leads to."""
        return frozenset(self._git("rev-list", "--all").decode().split())

    def time(self, commit: str) -> int:
        """Seconds since the epoch."""
        return int(self._git("show", "--no-patch", "--format=%ct", commit).split()[-1])

    def paths(self, commit: str) -> list[str]:
        """Paths of all files of a commit, sorted."""
        return self._git("ls-tree", "-r", "-z", "--name-only", commit).decode(errors="replace").split("\0")[:-1]

    def text(self, commit: str, path: str) -> str:
        """A file of a commit; bytes that are not UTF-8 are replaced."""
        return self._git("show", f"{commit}:{path}").decode(errors="replace")

    def patch(self, before: str, after: str, paths: Sequence[str]) -> bytes:
        """What `paths` change between two commits, in bytes that depend on the commits alone; empty for no paths."""
        return self._git(*_DIFF, before, after, "--", *sorted(paths)) if paths else b""

    def export(self, commit: str, directory: Path) -> None:
        """Write a commit's tree into an empty directory, files that archives would leave out included."""
        with tempfile.TemporaryDirectory(prefix="arcforge-index-") as scratch:
            index = {"GIT_INDEX_FILE": f"{scratch}/index"}
            self._git("read-tree", commit, environment=index)
            self._git("checkout-index", "--all", "--force", environment=index, work_tree=directory.resolve())

    def _git(self, *arguments: str, environment: dict[str, str] | None = None, work_tree: Path | None = None) -> bytes:
        place = [f"--git-dir={self.path}"] + ([f"--work-tree={work_tree}"] if work_tree else [])
        return run_git([*place, *arguments], cwd=work_tree, environment=environment)


def apply(directory: Path, patch: bytes) -> None:
    """Apply a patch to a directory, which need not be a repository. Rejected("patch") when it does not fit."""
    if patch:
        above = {"GIT_CEILING_DIRECTORIES": str(directory.resolve().parent)}
        run_git([*APPLY, "-"], cwd=directory, environment=above, stdin=patch, reason="patch")


def commit_everything(directory: Path, message: str) -> str:
    """Make a directory a repository of one commit, so that no future can be read from it; the commit's sha.

    Author and date are fixed: the same tree gives the same sha.
    """
    names = {f"GIT_{who}_{what}": "arcforge" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{who}_DATE": "2000-01-01T00:00:00+0000" for who in ("AUTHOR", "COMMITTER")}
    run_git(["init", "--quiet", "--initial-branch=main", "--template="], cwd=directory)
    run_git(["add", "--all", "--force"], cwd=directory)
    run_git(["commit", "--quiet", "--allow-empty", f"--message={message}"], cwd=directory, environment=names | dates)
    return run_git(["rev-parse", "HEAD"], cwd=directory).decode().strip()


def git_command() -> list[str]:
    """git with the settings that decide what it reads and writes."""
    return ["git", *(option for key, value in _SETTINGS.items() for option in ("-c", f"{key}={value}"))]


def run_git(
    arguments: Sequence[str], cwd: Path | None = None, environment: dict[str, str] | None = None,
    stdin: bytes = b"", reason: str = "git",
) -> bytes:  # fmt: skip
    """git's stdout, whatever this machine's git settings are. Rejected(reason) when it fails or takes too long."""
    frozen = {
        "PATH": os.environ.get("PATH", os.defpath), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C.UTF-8", "TZ": "UTC",
    }  # fmt: skip
    command = [*git_command(), *arguments]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=frozen | (environment or {}), input=stdin, capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise UserError("git is not installed; install it with the system's package manager") from None
    except subprocess.TimeoutExpired:
        raise Rejected(reason, f"git {arguments[0]} took more than {SECONDS} s") from None
    if done.returncode:
        raise Rejected(reason, done.stderr.decode(errors="replace").strip()[-300:])
    return done.stdout


def _read_log(text: str) -> Iterator[Commit]:
    for entry in text.split("\x01")[1:]:
        sha, parent, time, message, listed = entry.split("\x02", 4)
        tokens = [token for token in listed.strip("\n").split("\0") if token.strip("\n")]
        changes = [Change(status.strip("\n")[0], path) for status, path in zip(tokens[::2], tokens[1::2])]
        yield Commit(sha, parent, int(time), message.strip(), tuple(changes))
