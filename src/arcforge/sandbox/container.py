"""A sandbox that is a container of podman or docker: slower to start and to enter than an overlay, the engine's own limits."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import time
import uuid
from collections.abc import Sequence

from arcforge.core.errors import SandboxError
from arcforge.core.protocols import ExecResult, FileChange
from arcforge.sandbox.folder import SKIPPED
from arcforge.sandbox.images import Engine, Image
from arcforge.sandbox.inside import FILE_CAP
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.overlay import BOX_LIMITS
from arcforge.sandbox.unified import diff_of

_KINDS = {"A": "added", "C": "changed", "D": "removed"}
_ERRORS = {"No such file": errno.ENOENT, "Is a directory": errno.EISDIR, "Not a directory": errno.ENOTDIR}


class ContainerSandbox:
    """Implements core.protocols.Sandbox; made by `create`. The image needs a POSIX shell, cat, find and mkdir."""

    def __init__(self, engine: Engine, image: Image, limits: Limits, network: bool) -> None:
        self._engine, self._image, self.limits, self._network = engine, image, limits, network
        self.name = f"arcforge-{uuid.uuid4().hex[:12]}"

    @classmethod
    async def create(
        cls, engine: Engine, image: Image, limits: Limits = BOX_LIMITS, network: bool = False
    ) -> ContainerSandbox:
        """SandboxError when the engine will not start it."""
        box = cls(engine, image, limits, network)
        cpus = ["--cpus", str(limits.cpus)] if limits.cpus else []
        await engine.run([
            "run", "-d", "--rm", "--init", "--name", box.name, "--network", "bridge" if network else "none", *cpus,
            "--memory", str(limits.memory_bytes), "--pids-limit", str(limits.processes), "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", image.name, "sleep", "2147483647",
        ])  # fmt: skip
        return box

    async def exec(self, argv: Sequence[str], timeout: float | None = None, stdin: str = "") -> ExecResult:
        """The engine's `exec`. A command that outlives `timeout` is killed inside; exit code -9."""
        seconds = self.limits.wall_seconds if timeout is None else timeout
        mark, began = f"ARCFORGE_JOB={uuid.uuid4().hex}", time.monotonic()
        command = ["exec", "-i", "-e", mark, "-w", self._image.workdir, self.name, *argv]
        try:
            code, out, err = await self._engine.run(command, seconds, stdin.encode(), check=False)
        except SandboxError:
            await self._kill_marked(mark)
            return ExecResult(exit_code=-9, stdout="", stderr="", timed_out=True, seconds=time.monotonic() - began)
        if code in (125, 126) and b"container" in err and await self._is_gone():
            raise SandboxError(f"{self.name}: {err.decode(errors='replace').strip()[-300:]}")
        cap = self.limits.output_bytes
        return ExecResult(
            exit_code=code,
            stdout=out[:cap].decode(errors="replace"),
            stderr=err[:cap].decode(errors="replace"),
            truncated=max(len(out), len(err)) > cap,
            seconds=time.monotonic() - began,
        )

    async def read(self, path: str) -> str:
        code, out, err = await self._shell(f"head -c {FILE_CAP + 1} -- {shlex.quote(path)}")
        self._raise_for(code, err, path)
        if len(out) > FILE_CAP:
            raise OSError(errno.EFBIG, "larger than 1 MiB", path)
        return out.decode()

    async def write(self, path: str, text: str) -> None:
        if len(text.encode()) > FILE_CAP:
            raise OSError(errno.EFBIG, "larger than 1 MiB", path)
        parent = os.path.dirname(path) or "."
        code, _, err = await self._shell(
            f"mkdir -p -- {shlex.quote(parent)} && cat > {shlex.quote(path)}", text.encode()
        )
        self._raise_for(code, err, path)

    async def files(self) -> list[str]:
        pruned = " -o ".join(f"-name {name}" for name in sorted(SKIPPED))
        code, out, err = await self._shell(f"find . \\( {pruned} \\) -prune -o ! -type d -print")
        self._raise_for(code, err, ".")
        return sorted(line.removeprefix("./") for line in out.decode(errors="replace").splitlines())

    async def changes(self) -> list[FileChange]:
        """Paths below the workdir that the engine's `diff` names; the old text is not known of an engine."""
        _, out, _ = await self._engine.run(["diff", self.name])
        inside, found = self._image.workdir.rstrip("/") + "/", []
        for line in out.decode(errors="replace").splitlines():
            letter, _, path = line.partition(" ")
            if not path.startswith(inside) or letter not in _KINDS:
                continue
            after = None
            if letter != "D":
                try:
                    after = await self.read(path)
                except IsADirectoryError:
                    continue
                except (OSError, UnicodeDecodeError):
                    after = None
            found.append(
                FileChange.model_validate({"path": path.removeprefix(inside), "kind": _KINDS[letter], "after": after})
            )
        return sorted(found, key=lambda change: change.path)

    async def diff(self) -> str:
        return diff_of(await self.changes())

    async def snapshot(self) -> ContainerSnapshot:
        tag = f"localhost/{self.name}-{uuid.uuid4().hex[:8]}"
        await self._engine.run(["commit", "-q", self.name, tag])
        image = Image(tag, self._image.workdir, self._image.env)
        return ContainerSnapshot(self._engine, image, self.limits, self._network)

    async def fork(self) -> ContainerSandbox:
        return await (await self.snapshot()).create()

    async def kill(self) -> None:
        await self._shell("kill -9 -1")

    async def stats(self) -> dict[str, float]:
        _, out, _ = await self._engine.run(["inspect", "--size", "--format", "{{.SizeRw}}", self.name])
        return {"disk_bytes": float(out.decode().strip() or 0)}

    async def close(self) -> None:
        await self._engine.run(["rm", "-f", "-t", "0", self.name], check=False)

    async def __aenter__(self) -> ContainerSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())

    async def _shell(self, script: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        command = ["exec", "-i", "-w", self._image.workdir, self.name, "sh", "-c", script]
        code, out, err = await self._engine.run(command, stdin=stdin, check=False)
        if code == 125:
            raise SandboxError(f"{self.name}: {err.decode(errors='replace').strip()[-300:]}")
        return code, out, err

    async def _kill_marked(self, mark: str) -> None:
        await self._shell(f"for p in /proc/[0-9]*; do grep -qs {mark} $p/environ && kill -9 ${{p#/proc/}}; done; true")

    async def _is_gone(self) -> bool:
        code, _, _ = await self._engine.run(["container", "inspect", self.name], check=False)
        return code != 0

    @staticmethod
    def _raise_for(code: int, err: bytes, path: str) -> None:
        if code:
            text = err.decode(errors="replace")
            number = next((number for words, number in _ERRORS.items() if words in text), errno.EIO)
            raise OSError(number, text.strip()[-200:], path)


class ContainerSnapshot:
    """An image of a container's files. Implements core.protocols.Snapshot."""

    def __init__(self, engine: Engine, image: Image, limits: Limits, network: bool) -> None:
        self._engine, self.image, self._limits, self._network = engine, image, limits, network

    async def create(self) -> ContainerSandbox:
        return await ContainerSandbox.create(self._engine, self.image, self._limits, self._network)

    async def drop(self) -> None:
        await self._engine.run(["rmi", "-f", self.image.name], check=False)
