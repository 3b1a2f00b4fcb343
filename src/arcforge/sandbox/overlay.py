"""Sandboxes of bubblewrap and overlayfs: a file system of one's own over folders that stay as they are, and nothing else.

A sandbox has user, process, network, ipc, uts and cgroup namespaces of its own and no capability; its processes end with it. One
server process (`sandbox.overlay_server`) makes them all and enters them to run commands, a few milliseconds each.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import itertools
import json
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from arcforge.core.errors import SandboxError, UserError
from arcforge.core.protocols import ExecResult, FileChange
from arcforge.sandbox.channel import ServerProcess
from arcforge.sandbox.folder import SKIPPED, new_directory
from arcforge.sandbox.host import bubblewrap_works, python_folders, skeleton, tell_once
from arcforge.sandbox.inside import FILE_CAP
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.spec import PATH, Spec
from arcforge.sandbox.unified import diff_of

Layer = tuple[int, tuple[str, ...] | None]
"""A snapshot's number, and of which overlays its files are wanted; None: of all."""
BOX_LIMITS = Limits(cpu_seconds=600, processes=512, file_bytes=1 << 30, output_bytes=64 << 10)
WORK = "/workspace"
_OPERATION_SECONDS = 120.0
# Who is not root becomes it in namespaces of its own; the server leaves and enters process namespaces, so it needs an own one too.
_OWN_NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class OverlaySandboxes:
    """Makes sandboxes. Belongs to one event loop at a time. UserError where bubblewrap does not work."""

    def __init__(self) -> None:
        if not bubblewrap_works():
            raise UserError(
                "bubblewrap is not installed or may not make namespaces here; on Debian: apt-get install bubblewrap"
            )
        self._server = ServerProcess(self._command, "sandbox server", {"PYTHONUTF8": "1"})
        self._numbers = itertools.count(1)
        self._folder: Path | None = None

    async def create(self, spec: Spec) -> OverlaySandbox:
        """SandboxError when it cannot be made."""
        return await self.create_over(spec, ())

    async def create_over(self, spec: Spec, layers: tuple[Layer, ...]) -> OverlaySandbox:
        """The same over the layers of snapshots, oldest first."""
        number = next(self._numbers)
        request = {"create": number, "spec": {**asdict(spec), "layers": layers}}
        answer = await self._server.ask(request, _OPERATION_SECONDS)
        missing = sorted({"memory", "pids", "cpu"} - set(answer["held"]))
        if missing:
            tell_once(
                f"sandboxes: no control groups for {', '.join(missing)} here; held by rlimits of each process, or not at all"
            )
        return OverlaySandbox(self, self._server, number, spec, layers)

    def host(self, folder: Path | None = None, limits: Limits = BOX_LIMITS, **changes: Any) -> Spec:
        """This machine's /usr and this Python under a fresh root, with `folder`, or an empty one, as /workspace."""
        base = self._base()
        work = str(folder.resolve()) if folder else str(base / "empty")
        bins = [f"{sys.prefix}/bin", f"{sys.base_prefix}/bin"]
        return replace(
            Spec(
                overlays={"/": (str(base / "root"),), "/usr": ("/usr",), WORK: (work,)},
                read_only={path: path for path in python_folders()},
                workdir=WORK,
                env={
                    "PATH": ":".join([*dict.fromkeys(bins), PATH]),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONHASHSEED": "0",
                },
                limits=limits,
            ),
            **changes,
        )

    def next_number(self) -> int:
        return next(self._numbers)

    async def close(self) -> None:
        """End every sandbox and the server; it may be used again."""
        await self._server.close()
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    async def __aenter__(self) -> OverlaySandboxes:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _base(self) -> Path:
        """Lower directories that every sandbox shares."""
        if self._folder is None:
            self._folder = new_directory()
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            (self._folder / "empty").mkdir()
            skeleton().rename(self._folder / "root")
        return self._folder

    def _command(self) -> list[str]:
        folder = tempfile.mkdtemp(prefix="arcforge-boxes-")
        own = [*_OWN_NAMESPACES] if os.geteuid() else []
        name = f"arcforge-{os.getpid()}-{os.path.basename(folder)}"
        return [*own, sys.executable, "-P", "-m", "arcforge.sandbox.overlay_server", name, folder]


@dataclass(frozen=True)
class FileState:
    """mode: type and permission bits. modified: seconds on this machine's clock."""

    mode: int
    size: int
    modified: float


class OverlaySandbox:
    """One sandbox. Implements core.protocols.Sandbox. Every method raises SandboxError once it is gone."""

    def __init__(
        self, owner: OverlaySandboxes, server: ServerProcess, number: int, spec: Spec, layers: tuple[Layer, ...]
    ) -> None:
        self._owner, self._server, self._number, self._layers = owner, server, number, layers
        self._starts = server.starts
        self.spec = spec

    async def exec(
        self,
        argv: Sequence[str],
        timeout: float | None = None,
        stdin: str = "",
        *,
        directory: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run `argv` (no shell) in `directory`, the spec's workdir if not given. What it leaves in the background goes on.

        Exit code 127: not found, 126: not to be run, or no such directory, -9: killed, by the timeout (seconds; the limits' if
        not given) or for memory.
        """
        limits = self.spec.limits
        seconds = limits.wall_seconds if timeout is None else timeout
        if not argv:
            raise ValueError("an empty command")
        request = {
            "exec": list(argv), "directory": directory or self.spec.workdir, "env": dict(env or {}), "timeout": seconds,
            "stdin": stdin, "limits": asdict(limits),
        }  # fmt: skip
        return ExecResult(**await self._ask(request, seconds))

    async def read(self, path: str) -> str:
        """Text of a file; relative paths are below the workdir. OSError and UnicodeDecodeError: the caller's mistakes."""
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str) -> bytes:
        return base64.b64decode((await self._ask({"read": path}))["raw"])

    async def write(self, path: str, text: str) -> None:
        """Make or replace a file, and the folders it lies in."""
        if len(text.encode()) > FILE_CAP:
            raise OSError(errno.EFBIG, "larger than 1 MiB", path)
        await self.write_bytes(path, text.encode())

    async def write_bytes(self, path: str, raw: bytes, mode: int | None = None) -> None:
        """The same of any size, with permission bits where they are given."""
        await self._ask({"write": path, "raw": base64.b64encode(raw).decode(), "mode": mode})

    async def stat(self, path: str) -> FileState:
        """Of the path itself, should it be a link."""
        return FileState(**json.loads(base64.b64decode((await self._ask({"stat": path}))["raw"])))

    async def remove(self, path: str) -> None:
        """A folder with all that is in it. OSError for a link to one."""
        await self._ask({"remove": path})

    async def files(self) -> list[str]:
        """Relative paths below the workdir, sorted; version control, caches and dependency folders are left out."""
        raw = base64.b64decode((await self._ask({"list": sorted(SKIPPED)}))["raw"]).decode(errors="replace")
        return raw.split("\0") if raw else []

    async def changes(self, inside: str | None = None) -> list[FileChange]:
        """What differs below a path inside, the workdir if not given, from the folders below its overlay; paths relative to it."""
        place = PurePosixPath(inside or self.spec.workdir)
        overlay = max((path for path in self.spec.overlays if place.is_relative_to(path)), key=len)
        answer = await self._ask({"changes": overlay})
        below = str(place.relative_to(overlay))
        prefix = "" if below == "." else f"{below}/"
        found = (change for change in answer["changes"] if change["path"].startswith(prefix))
        return [FileChange(**{**change, "path": change["path"].removeprefix(prefix)}) for change in found]

    async def diff(self) -> str:
        return diff_of(await self.changes())

    async def snapshot(self) -> OverlaySnapshot:
        """What was written so far, kept. Processes are not; they go on meanwhile."""
        number = self._owner.next_number()
        await self._ask({"snapshot": number})
        return OverlaySnapshot(self._owner, self._server, self.spec, self._layers, number)

    async def fork(self) -> OverlaySandbox:
        """A sandbox that starts with this one's files."""
        snapshot = await self.snapshot()
        try:
            return await snapshot.create()
        finally:
            await snapshot.drop()

    async def kill(self) -> None:
        """End every process inside; the files stay."""
        await self._ask({"end": True})

    async def stats(self) -> dict[str, float]:
        """disk_bytes, and where there are control groups cpu_seconds, memory_bytes, memory_peak_bytes, processes, memory_kills."""
        return await self._ask({"stats": True})

    async def close(self) -> None:
        """The sandbox is gone with all that is in it. Nothing happens when it is gone already."""
        try:
            await self._ask({"close": True})
        except SandboxError:
            return

    async def __aenter__(self) -> OverlaySandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, request: dict[str, Any], timeout: float = _OPERATION_SECONDS) -> dict[str, Any]:
        if self._server.pid is None or self._server.starts != self._starts:
            raise SandboxError("the sandbox is gone: its server ended")
        answer = await self._server.ask({**request, "box": self._number}, timeout)
        if "errno" in answer:  # which decides the class: FileNotFoundError and so on
            path = next((request[name] for name in ("read", "write", "stat", "remove") if name in request), None)
            raise OSError(answer["errno"], answer["text"], path)
        return answer


class OverlaySnapshot:
    """Files kept apart from the sandbox that wrote them, until its server ends or drop()."""

    def __init__(
        self, owner: OverlaySandboxes, server: ServerProcess, spec: Spec, below: tuple[Layer, ...], number: int
    ) -> None:
        self._owner, self._server, self._spec, self._below, self._number = owner, server, spec, below, number
        self._dropped = False

    async def create(self, only: Sequence[str] | None = None) -> OverlaySandbox:
        """A sandbox that starts with these files; only: with those of these overlays (paths inside), the others as they were
        when the snapshot's sandbox was made."""
        if self._dropped:
            raise SandboxError("the snapshot was dropped")
        layer = (self._number, None if only is None else tuple(only))
        return await self._owner.create_over(self._spec, (*self._below, layer))

    async def drop(self) -> None:
        """No more sandboxes are made of it. Those that were go on, and keep its files as long as they or their forks live."""
        if not self._dropped:
            self._dropped = True
            await self._server.ask({"drop": self._number}, _OPERATION_SECONDS)
