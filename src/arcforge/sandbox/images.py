"""Images of podman or docker, built from Dockerfiles, as sandboxes.

An image that podman holds is mounted, read-only, and lies as the lowest layer under an overlay sandbox: it is built once with the
container engine and runs at the cost of bubblewrap. Where only a container engine will do there is `sandbox.container`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.core.errors import SandboxError, UserError
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.overlay import BOX_LIMITS
from arcforge.sandbox.spec import PATH, Spec

BUILD_SECONDS = 600.0
_SECONDS = 60.0
# For machines whose root may not raise limits or that mix both versions of control groups, where podman's own choices fail.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


@dataclass(frozen=True)
class Image:
    """What an image says about itself. folder: where its files are mounted, "" when they are not."""

    name: str
    workdir: str
    env: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    def spec(self, limits: Limits = BOX_LIMITS, network: bool = False) -> Spec:
        """The image's files under a fresh overlay. UserError for an image that is not mounted."""
        if not self.folder:
            raise UserError(f"{self.name}: the image is not mounted; only podman, run by root, can mount one")
        overlays = {"/": (self.folder,)}
        return Spec(overlays, workdir=self.workdir, env={"PATH": PATH, **self.env}, limits=limits, network=network)


class Engine:
    """podman or docker on this machine, by their command. UserError when it is not installed."""

    def __init__(self, name: str = "podman") -> None:
        if shutil.which(name) is None:
            raise UserError(
                f"{name} is not installed; on Debian: apt-get install {'podman runc' if name == 'podman' else 'docker.io'}"
            )
        self.name = name
        self._settings = tempfile.TemporaryDirectory(prefix="arcforge-engine-")
        self._environment = dict(os.environ)
        if name == "podman" and "CONTAINERS_CONF" not in os.environ and shutil.which("runc"):
            file = Path(self._settings.name) / "containers.conf"
            file.write_text(_CONTAINERS_CONF)
            self._environment["CONTAINERS_CONF"] = str(file)

    async def run(
        self, arguments: Sequence[str], timeout: float = _SECONDS, stdin: bytes = b"", check: bool = True
    ) -> tuple[int, bytes, bytes]:
        """(exit code, output, errors) of one command of the engine. SandboxError when it does not end, or fails and `check`."""
        process = await asyncio.create_subprocess_exec(
            self.name, *arguments, env=self._environment, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), timeout)
        except TimeoutError:
            raise SandboxError(f"{self.name} {arguments[0]} did not end within {timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        code = process.returncode or 0
        if code and check:
            raise SandboxError(f"{self.name} {arguments[0]}: {err.decode(errors='replace').strip()[-400:]}")
        return code, out, err

    async def build(
        self,
        context: Path,
        tag: str,
        dockerfile: Path | None = None,
        timeout: float = BUILD_SECONDS,
        network: bool = False,
    ) -> Image:
        """Build `context`/Dockerfile, or another, without network unless asked for. SandboxError with the engine's last words
        when it fails."""
        file = dockerfile or context / "Dockerfile"
        if not file.is_file():
            raise UserError(f"{file}: no such file; name the Dockerfile to build")
        cut_off = [] if network else ["--network", "none"]
        await self.run(["build", "-q", *cut_off, "-t", tag, "-f", str(file), str(context)], timeout)
        return await self.image(tag)

    async def image(self, name: str) -> Image:
        """An image that is here. SandboxError when it is not."""
        _, out, _ = await self.run(["image", "inspect", name])
        told = json.loads(out)[0]
        config = told.get("Config") or {}
        env = dict(entry.split("=", 1) for entry in config.get("Env") or [] if "=" in entry)
        folder = ""
        if self.name == "podman" and os.geteuid() == 0:
            _, mounted, _ = await self.run(["image", "mount", name])
            folder = mounted.decode().strip()
        return Image(name, config.get("WorkingDir") or "/", env, folder)

    async def forget(self, image: Image) -> None:
        """Unmount; the image stays."""
        if image.folder:
            await self.run(["image", "unmount", "--force", image.name], check=False)
