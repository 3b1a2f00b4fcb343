"""Checkouts that tests run in: every one starts from a tree of files that stays as it is, and is gone afterwards."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.clone import APPLY, apply, git_command
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.sandbox.folder import copy_directory
from arcforge.sandbox.host import bubblewrap_works, python_folders
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.overlay import WORK, OverlaySandbox, OverlaySandboxes, OverlaySnapshot
from arcforge.sandbox.process import ProcessSandbox

# The same on every machine and at every time: clock zone, hash seed, locale; no user site, no bytecode in the tree.
FROZEN = {
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
}
LIMITS = Limits(
    wall_seconds=60.0,
    cpu_seconds=3600,
    memory_bytes=4 << 30,
    processes=256,
    file_bytes=256 << 20,
    disk_bytes=1 << 30,
    output_bytes=16 << 20,
)
_PATCH, _SPARE_SECONDS = "/tmp/arcforge.patch", 300.0
Result = TypeVar("Result")


class Checkout(Protocol):
    """One copy of a tree. root: the path under which commands see it. private: whether /tmp is its own. SandboxError: its machinery
    failed."""

    @property
    def root(self) -> str: ...

    @property
    def private(self) -> bool: ...

    def apply(self, patch: bytes) -> None:
        """Rejected("patch") when it does not fit."""
        ...

    def write(self, path: str, text: str) -> None: ...

    def read(self, path: str) -> str:
        """OSError when there is no such file, or it is too large."""
        ...

    def run(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> ExecResult:
        """`environment` is added to FROZEN and nothing else is set."""
        ...


class Checkouts(Protocol):
    """Makes checkouts, from any thread."""

    @property
    def name(self) -> str: ...

    def open(self, tree: Path, readable: Sequence[Path] = ()) -> AbstractContextManager[Checkout]:
        """readable: what of this machine commands need to see besides its system."""
        ...

    def built(
        self, tree: Path, readable: Sequence[Path], argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[None]:
        """While it is open, checkouts of `tree` start with what a command leaves of it, if these checkouts can keep that. The command
        has to be one that every run begins with. Rejected("does_not_build") when it fails."""
        ...

    def close(self) -> None: ...


class ProcessCheckouts:
    """Copies, and plain processes of this user under rlimits: for trusted repositories only, the network stays open."""

    name = "process"

    @contextmanager
    def open(self, tree: Path, readable: Sequence[Path] = ()) -> Iterator[Checkout]:
        root = copy_directory(tree, skipped=())
        try:
            yield _ProcessCheckout(root)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    @contextmanager
    def built(
        self, tree: Path, readable: Sequence[Path], argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> Iterator[None]:
        """Nothing is kept: what is built knows the folder that it was built in."""
        yield

    def close(self) -> None:
        """Nothing is kept."""


class _ProcessCheckout:
    private = False

    def __init__(self, root: Path) -> None:
        self._path = root.resolve()
        self.root = str(self._path)

    def apply(self, patch: bytes) -> None:
        apply(self._path, patch)

    def write(self, path: str, text: str) -> None:
        target = self._path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def read(self, path: str) -> str:
        return (self._path / path).read_text("utf-8")

    def run(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> ExecResult:
        variables = {**FROZEN, "HOME": self.root, **environment}
        command = ["env", "-i", *(f"{key}={value}" for key, value in variables.items()), *argv]
        return asyncio.run(ProcessSandbox(self._path, LIMITS).exec(command, timeout))


class OverlayCheckouts:
    """Overlay sandboxes over the tree: no network, nothing of this machine but its system, Python and what is readable."""

    name = "overlay"

    def __init__(self) -> None:
        self._boxes = OverlaySandboxes()
        self._built: dict[Path, OverlaySnapshot] = {}
        self._loop = asyncio.new_event_loop()
        # The sandboxes belong to one event loop, and the threads that measure have none.
        self._thread = threading.Thread(target=self._loop.run_forever, name="checkouts", daemon=True)
        self._thread.start()

    @contextmanager
    def open(self, tree: Path, readable: Sequence[Path] = ()) -> Iterator[Checkout]:
        box = self.wait(self._make(tree, readable))
        try:
            yield _OverlayCheckout(self, box)
        finally:
            self.wait(box.close())

    @contextmanager
    def built(
        self, tree: Path, readable: Sequence[Path], argv: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> Iterator[None]:
        box = self.wait(self._make(tree, readable))
        try:
            done = _OverlayCheckout(self, box).run(argv, environment, timeout)
            if done.exit_code:
                raise Rejected("does_not_build", "it takes too long" if done.timed_out else done.stdout.strip()[-300:])
            self._built[tree] = snapshot = self.wait(box.snapshot())
        finally:
            self.wait(box.close())
        try:
            yield
        finally:
            del self._built[tree]
            self.wait(snapshot.drop())

    async def _make(self, tree: Path, readable: Sequence[Path]) -> OverlaySandbox:
        if tree in self._built:
            return await self._built[tree].create()
        seen = {path: path for path in python_folders(readable)}
        env = {**FROZEN, "HOME": "/tmp"}
        return await self._boxes.create(self._boxes.host(tree, LIMITS, uid=1000, env=env, read_only=seen))

    def close(self) -> None:
        """End every sandbox; no more are made."""
        if self._thread.is_alive():
            self.wait(self._boxes.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_SPARE_SECONDS)
            self._loop.close()

    def wait(self, work: Coroutine[Any, Any, Result], timeout: float = 0.0) -> Result:
        """What a coroutine gives, from a thread of the caller's."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout + _SPARE_SECONDS)


class _OverlayCheckout:
    root, private = WORK, True

    def __init__(self, checkouts: OverlayCheckouts, box: OverlaySandbox) -> None:
        self._wait, self._box = checkouts.wait, box

    def apply(self, patch: bytes) -> None:
        if not patch:
            return
        self._wait(self._box.write_bytes(_PATCH, patch))
        done = self._wait(self._box.exec([*git_command(), *APPLY, _PATCH], env={"GIT_CEILING_DIRECTORIES": "/"}))
        if done.exit_code:
            raise Rejected("patch", done.stderr.strip()[-300:])

    def write(self, path: str, text: str) -> None:
        self._wait(self._box.write(path, text))

    def read(self, path: str) -> str:
        done = self._wait(
            self._box.exec(["cat", path])
        )  # reports are larger than the files that the sandbox hands out itself
        if done.exit_code or done.truncated:
            raise OSError(errno.EIO, done.stderr.strip() or "larger than what is kept of an output", path)
        return done.stdout

    def run(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> ExecResult:
        return self._wait(self._box.exec(argv, timeout, env=environment), timeout)


def best_checkouts() -> Checkouts:
    """Overlay sandboxes where bubblewrap is installed and may make namespaces, else plain processes."""
    return OverlayCheckouts() if bubblewrap_works() else ProcessCheckouts()
