"""A Runner over bubblewrap: the host's /usr read-only, an own working directory, home, /tmp, /usr/local and /logs, no network.

An image is a folder that the Dockerfile's COPY and RUN lines filled; an attempt is a copy of it. Every script has process
ids of its own, and all of them end with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from arcforge.core.errors import SandboxError, TaskError, UserError
from arcforge.core.protocols import ExecResult
from arcforge.envs.terminal.dockerfile import Recipe, host_path, recipe
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.verdict import VerifierRun
from arcforge.sandbox.spec import own_proc

OUTPUT_BYTES = 64 << 10
BUILD_SECONDS = 120.0
LIMITS = "ulimit -t 120 -f 262144 -v 4194304; "
"""Of one process: CPU seconds, KiB of a file, KiB of memory."""
WRITABLE = {"/root": "home", "/tmp": "tmp", "/usr/local": "local", "/logs": "logs"}
_ETC = ("alternatives", "ld.so.cache", "passwd", "group", "localtime", "nsswitch.conf", "magic")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BubblewrapRunner:
    """Implements envs.terminal.runner.Runner. UserError when bubblewrap is not installed."""

    def __init__(self) -> None:
        if shutil.which("bwrap") is None:
            raise UserError("bubblewrap is not installed; install it, on Debian with apt-get install bubblewrap")

    @asynccontextmanager
    async def image(self, task: HarborTask) -> AsyncIterator[_Image]:
        if problem := task.problem():
            raise TaskError(problem)
        with tempfile.TemporaryDirectory(prefix="arcforge-image-", ignore_cleanup_errors=True) as folder:
            image = _Image(Path(folder), task, recipe(task.dockerfile or ""))
            await image.build()
            yield image


class _Image:
    """folder: the image's tree. recipe: what the Dockerfile says."""

    def __init__(self, folder: Path, task: HarborTask, recipe: Recipe) -> None:
        self.folder, self.task, self.recipe = folder, task, recipe
        top = recipe.workdir.strip("/").split("/")[0]
        if not top or f"/{top}" in ("/usr", "/etc", "/proc", "/dev", "/tests", "/solution"):
            raise TaskError(f"Dockerfile: a working directory {recipe.workdir} cannot be had here")
        self.places = {**WRITABLE, f"/{top}": WRITABLE.get(f"/{top}", "work")}

    async def build(self) -> None:
        for place in (*self.places.values(), "logs/verifier", "logs/agent", "logs/artifacts", "local/bin"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        outside = {inside: str(self.folder / place) for inside, place in self.places.items()}
        os.makedirs(host_path(self.recipe.workdir, outside), exist_ok=True)
        for kind, what, where in self.recipe.steps:
            if kind == "copy":
                self._copy(what, where, outside)
                continue
            done = await self.run(self.folder, what, where, BUILD_SECONDS)
            if done.exit_code:
                raise TaskError(f"Dockerfile: RUN {what} ended with {done.exit_code}: {done.stderr[-300:]}")

    def _copy(self, source: str, target: str, outside: Mapping[str, str]) -> None:
        """As COPY does: a folder's content into the folder, a file to a name or into a folder."""
        context = self.task.part("environment")
        source = source.removeprefix("./").rstrip("/")
        below = {path: raw for path, raw in context.items() if source in ("", ".") or path.startswith(f"{source}/")}
        if source in context:
            below = {source: context[source]}
        if not below:
            raise TaskError(f"Dockerfile: COPY {source}: not in environment/")
        for path, raw in below.items():
            name = path.rpartition("/")[2] if path == source else path.removeprefix(source).lstrip("/")
            whole = path == source and not target.endswith("/")
            place = Path(host_path(target if whole else f"{target.rstrip('/')}/{name}", outside))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(raw)
            place.chmod(0o755 if f"environment/{path}" in self.task.executable else 0o644)

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[_Attempt]:
        with tempfile.TemporaryDirectory(prefix="arcforge-attempt-", ignore_cleanup_errors=True) as folder:
            await copy_tree(self.folder, Path(folder) / "root")
            yield _Attempt(self, Path(folder))

    async def run(
        self, root: Path, script: str, workdir: str, timeout: float, extra: Mapping[str, Path] | None = None
    ) -> ExecResult:
        """extra: further folders, container path -> host path, writable."""
        binds = {inside: root / place for inside, place in self.places.items()} | dict(extra or {})
        argv = [*_bwrap(binds, {**self.recipe.env}, workdir), "bash", "-c", LIMITS + 'exec bash -c "$0"', script]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.monotonic()
            code, timed_out = await _wait(argv, out.fileno(), err.fileno(), timeout)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read(OUTPUT_BYTES).decode("utf-8", "replace"))
        if code == 1 and texts[1].startswith("bwrap: "):
            raise SandboxError(texts[1].strip()[:300])
        return ExecResult(
            exit_code=code, stdout=texts[0], stderr=texts[1], timed_out=timed_out, seconds=time.monotonic() - began
        )


class _Attempt:
    """folder/root: what the agent sees. folder/verifier: what the tests see."""

    def __init__(self, image: _Image, folder: Path) -> None:
        self._image, self._folder = image, folder

    async def act(self, script: str, files: Mapping[str, bytes] | None = None, timeout: float = 60.0) -> ExecResult:
        extra = {}
        if files:
            extra["/solution"] = _write(self._folder / "solution", files)
        workdir = self._image.recipe.workdir
        return await self._image.run(self._folder / "root", script, workdir, timeout, extra)

    async def verify(self) -> VerifierRun:
        image, fresh = self._image, self._folder / "verifier"
        work = image.places["/" + image.recipe.workdir.strip("/").split("/")[0]]
        await copy_tree(image.folder, fresh, without=work)
        await copy_tree(self._folder / "root" / work, fresh / work)
        tests = _write(self._folder / "tests", image.task.part("tests"))
        mark = self._folder / "started"
        mark.touch()
        started = mark.stat().st_mtime
        verifier = image.task.config.verifier
        script = "".join(f"export {key}='{value}'; " for key, value in verifier.env.items()) + "bash -p /tests/test.sh"
        done = await image.run(fresh, script, image.recipe.workdir, verifier.timeout_sec, {"/tests": tests})
        return VerifierRun(done.exit_code, done.timed_out, started, _rewards(fresh / "logs" / "verifier"))


async def copy_tree(source: Path, target: Path, without: str = "") -> None:
    """Modes, times and links kept. SandboxError when it cannot be copied whole."""
    target.mkdir()
    names = [str(path) for path in sorted(source.iterdir()) if path.name != without]
    if not names:
        return
    process = await asyncio.create_subprocess_exec("cp", "-a", *names, str(target), stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise SandboxError(f"cannot copy {source}: {said.decode('utf-8', 'replace')[:300]}")


def _bwrap(binds: Mapping[str, Path], env: Mapping[str, str], workdir: str) -> list[str]:
    argv = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--uid", "0", "--gid", "0", "--clearenv"]
    for key, value in {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TZ": "UTC", **env}.items():
        argv += ["--setenv", key, value]
    argv += ["--ro-bind", "/usr", "/usr", *own_proc(), "--dev", "/dev"]
    for name in ("bin", "sbin", "lib", "lib64"):
        argv += ["--symlink", f"usr/{name}", f"/{name}"]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for inside, outside in binds.items():
        argv += ["--bind", str(outside), inside]
    return [*argv, "--chdir", workdir, "--"]


async def _wait(argv: list[str], out: int, err: int, timeout: float) -> tuple[int, bool]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )
    try:
        return await asyncio.wait_for(process.wait(), timeout), False
    except TimeoutError:
        return -signal.SIGKILL, True
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A fresh folder of the files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, raw in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(raw)
        place.chmod(0o755)
    return folder


def _rewards(folder: Path) -> dict[str, tuple[str, float]]:
    """Reward files that are files; a link or a pipe in their place is none."""
    found = {}
    for name in ("reward.json", "reward.txt"):
        place = folder / name
        if place.is_file() and not place.is_symlink() and place.stat().st_size < 1 << 16:
            found[name] = (place.read_text("utf-8", "replace"), place.stat().st_mtime)
    return found
