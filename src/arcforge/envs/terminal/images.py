"""A Harbor task's environment as podman builds it: its FROM and every line of its Dockerfile, or the image that task.toml names."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from arcforge.core.errors import SandboxError, TaskError, UserError
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.sandbox.images import Engine, Image

PREFIX = "localhost/arcforge-task-"


@asynccontextmanager
async def built(engine: Engine, task: HarborTask) -> AsyncIterator[Image]:
    """Its image, mounted meanwhile. The build has the network, as it has under Harbor, and the task's own time; the image stays
    in podman's store under a name made of its files, so that it is built once. TaskError: it cannot be built here."""
    named = task.config.environment.docker_image
    try:
        image = await (_build(engine, task) if task.dockerfile is not None or not named else engine.image(named))
    except SandboxError as error:
        raise TaskError(f"image: {error}") from None
    try:
        yield image
    finally:
        await engine.forget(image)


async def _build(engine: Engine, task: HarborTask) -> Image:
    name = PREFIX + _digest(task)
    code, _, _ = await engine.run(["image", "exists", name], check=False)
    if code == 0:
        return await engine.image(name)
    with tempfile.TemporaryDirectory(prefix="arcforge-context-") as temporary:
        context = Path(temporary)
        for path, content in task.part("environment").items():
            place = context / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755 if f"environment/{path}" in task.executable else 0o644)
        try:
            return await engine.build(context, name, timeout=task.config.environment.build_timeout_sec, network=True)
        except UserError as error:
            raise TaskError(f"image: {error}") from None


def _digest(task: HarborTask) -> str:
    hashed = hashlib.sha256()
    for path, content in sorted(task.part("environment").items()):
        hashed.update(f"{path}\0{f'environment/{path}' in task.executable}\0{len(content)}\0".encode())
        hashed.update(content)
    return hashed.hexdigest()[:24]
