"""Where Harbor tasks run: an image is what podman built, or what a Dockerfile's COPY and RUN lines wrote over this machine's system;
an attempt is an overlay sandbox over it, and the verifier runs in another one that has the attempt's working directory and none of its
other traces."""

from __future__ import annotations

import re
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from arcforge.core.errors import TaskError
from arcforge.core.protocols import ExecResult
from arcforge.envs.terminal.dockerfile import Recipe, recipe
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.images import built
from arcforge.envs.terminal.verdict import VerifierRun
from arcforge.sandbox.images import Engine, Image
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.overlay import WORK, OverlaySandbox, OverlaySandboxes, OverlaySnapshot
from arcforge.sandbox.spec import Spec

BUILD_SECONDS = 120.0
LIMITS = Limits(
    cpu_seconds=120,
    memory_bytes=2 << 30,
    processes=256,
    file_bytes=256 << 20,
    disk_bytes=1 << 30,
    output_bytes=64 << 10,
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_LOGS = ("/logs/verifier", "/logs/agent", "/logs/artifacts")
_REWARDS, _MOST_BYTES = ("reward.json", "reward.txt"), 1 << 16
_TOLD = 2000  # characters of what the tests printed


class SandboxRunner:
    """Makes images; an async context that ends its sandboxes. engine: builds them; without one a Dockerfile is followed over this
    machine's system. UserError where bubblewrap does not work."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.boxes, self._engine = OverlaySandboxes(), engine

    async def __aenter__(self) -> SandboxRunner:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.boxes.close()

    @asynccontextmanager
    async def image(self, task: HarborTask) -> AsyncIterator[SandboxImage]:
        """TaskError: the environment cannot be made."""
        if problem := task.problem():
            raise TaskError(problem)
        async with self._ground(task) as (boxes, spec, steps):
            async with await boxes.create(spec) as box:
                await _build(box, task, steps)
                await box.kill()
                snapshot = await box.snapshot()
            try:
                yield SandboxImage(task, snapshot)
            finally:
                await snapshot.drop()

    @asynccontextmanager
    async def _ground(self, task: HarborTask) -> AsyncIterator[tuple[OverlaySandboxes, Spec, Recipe]]:
        """What lies below, what makes sandboxes of it, and the steps that are still to be done. A server of sandboxes sees the
        images that were mounted when it began, so that each of those has a server of its own."""
        if self._engine is None:
            steps = recipe(task.dockerfile or "")
            steps.workdir = task.config.environment.workdir or steps.workdir
            steps.env.update(_filled(task.config.environment.env))
            yield self.boxes, _host_spec(self.boxes, steps), steps
            return
        with tempfile.TemporaryDirectory(prefix="arcforge-root-") as above:
            async with built(self._engine, task) as image, OverlaySandboxes() as boxes:
                spec = _image_spec(image, task, Path(above))
                yield boxes, spec, Recipe(spec.workdir)


@dataclass(frozen=True)
class SandboxImage:
    """An environment, made once."""

    task: HarborTask
    snapshot: OverlaySnapshot

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[SandboxAttempt]:
        async with await self.snapshot.create() as box:
            yield SandboxAttempt(self, box)


class SandboxAttempt:
    """One root with the environment's files in it. box: where an agent may also work by itself."""

    def __init__(self, image: SandboxImage, box: OverlaySandbox) -> None:
        self._image, self.box = image, box

    async def act(self, script: str, files: Mapping[str, bytes] | None = None, timeout: float = 60.0) -> ExecResult:
        """Run a bash script as the agent, in the working directory; `files` are in /solution meanwhile, with the variables of the
        task's solution. Nothing that it started outlives it. SandboxError: the machinery failed."""
        for path, raw in (files or {}).items():
            await self.box.write_bytes(f"/solution/{path}", raw, 0o755)
        env = _filled(self._image.task.config.solution.env) if files else {}
        done = await self.box.exec(["bash", "-c", script], timeout, env=env)
        await self.box.kill()
        if files:
            await self.box.remove("/solution")
        return done

    async def verify(self) -> VerifierRun:
        """Run the task's own tests, in another fresh root that has the agent's changes of the working directory only."""
        task, work = self._image.task, _top(self.box.spec.workdir)
        await self.box.kill()
        changed = await self.box.snapshot()
        try:
            async with await changed.create(only=[work]) as fresh:
                return await _verify(fresh, task)
        finally:
            await changed.drop()


async def _verify(fresh: OverlaySandbox, task: HarborTask) -> VerifierRun:
    """Nothing but test.sh is executed here: the working directory is the agent's, and may be on the task's PATH."""
    for path, raw in task.part("tests").items():
        await fresh.write_bytes(f"/tests/{path}", raw, 0o755)
    await fresh.write_bytes("/logs/.started", b"")
    started = (await fresh.stat("/logs/.started")).modified
    verifier = task.config.verifier
    done = await fresh.exec(["/bin/bash", "-p", "/tests/test.sh"], verifier.timeout_sec, env=_filled(verifier.env))
    await fresh.kill()
    files = {}
    for name in _REWARDS:
        path = f"/logs/verifier/{name}"
        with suppress(OSError):
            state = await fresh.stat(path)
            if stat.S_ISREG(state.mode) and state.size < _MOST_BYTES:
                files[name] = ((await fresh.read_bytes(path)).decode("utf-8", "replace"), state.modified)
    output = f"{done.stdout.rstrip()}\n{done.stderr.rstrip()}".strip()[-_TOLD:]
    return VerifierRun(done.exit_code, done.timed_out, started, files, output)


async def _build(box: OverlaySandbox, task: HarborTask, steps: Recipe) -> None:
    """TaskError for a step that fails."""
    for folder in (*_LOGS, steps.workdir):
        await _made(box, folder)
    for kind, what, where in steps.steps:
        if kind == "copy":
            await _copy(box, task, what, where)
            continue
        done = await box.exec(["bash", "-c", what], BUILD_SECONDS, directory=await _made(box, where))
        if done.exit_code:
            raise TaskError(f"Dockerfile: RUN {what} ended with {done.exit_code}: {done.stderr[-300:]}")


async def _copy(box: OverlaySandbox, task: HarborTask, source: str, target: str) -> None:
    """As COPY does: a folder's content into the folder, a file to a name or into a folder."""
    context = task.part("environment")
    source = source.removeprefix("./").rstrip("/")
    below = {path: raw for path, raw in context.items() if source in ("", ".") or path.startswith(f"{source}/")}
    if source in context:
        below = {source: context[source]}
    if not below:
        raise TaskError(f"Dockerfile: COPY {source}: not in environment/")
    for path, raw in below.items():
        name = path.rpartition("/")[2] if path == source else path.removeprefix(source).lstrip("/")
        whole = path == source and not target.endswith("/")
        place = target if whole else f"{target.rstrip('/')}/{name}"
        try:
            await box.write_bytes(place, raw, 0o755 if f"environment/{path}" in task.executable else 0o644)
        except OSError as error:
            raise TaskError(f"Dockerfile: COPY {source} to {place}: {error.strerror}") from None


async def _made(box: OverlaySandbox, directory: str) -> str:
    result = await box.exec(["mkdir", "-p", "--", directory], directory="/")
    if result.exit_code:
        raise TaskError(f"Dockerfile: {directory} cannot be made: {result.stderr.strip()[-200:]}")
    return directory


def _top(workdir: str) -> str:
    """The first folder of the working directory's path: it has an overlay of its own, which the verifier is given."""
    top = "/" + workdir.strip("/").split("/")[0]
    if top in ("/", "/usr", "/etc", "/proc", "/dev", "/tests", "/solution", "/logs"):
        raise TaskError(f"Dockerfile: a working directory {workdir} cannot be had here")
    return top


def _host_spec(boxes: OverlaySandboxes, steps: Recipe) -> Spec:
    host = boxes.host(limits=LIMITS, read_only={}, env=dict(steps.env), workdir=steps.workdir)
    lower = host.overlays[WORK]
    return replace(host, overlays={"/": host.overlays["/"], "/usr": host.overlays["/usr"], _top(steps.workdir): lower})


def _image_spec(image: Image, task: HarborTask, above: Path) -> Spec:
    """above: an empty folder. As the topmost one it makes the root writable, which a mounted image's is not for who has no
    capability, and holds the working directory's first folder, which an image need not have."""
    wanted = task.config.environment
    workdir = wanted.workdir or image.workdir
    spec, top = image.spec(LIMITS), _top(workdir)
    above.chmod(0o755)
    below, own = Path(image.folder) / top[1:], above / top[1:]
    own.mkdir()
    if below.is_symlink():
        raise TaskError(f"image: {top} is a link in it")
    overlays = {"/": (str(above), *spec.overlays["/"]), top: (str(below if below.is_dir() else own),)}
    return replace(spec, overlays=overlays, workdir=workdir, env={**spec.env, **_filled(wanted.env)})


def _filled(variables: Mapping[str, str]) -> dict[str, str]:
    """${NAME:-default} is its default: what this machine's variables hold is none of a task's business. TaskError for ${NAME}."""

    def fill(found: re.Match[str]) -> str:
        if found[2] is None:
            raise TaskError(f"task.toml: it wants the variable {found[1]} of this machine")
        return found[2]

    return {name: _VARIABLE.sub(fill, value) for name, value in variables.items()}
