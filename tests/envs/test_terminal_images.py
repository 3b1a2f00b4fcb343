"""Tasks whose image podman builds, FROM and all. FROM scratch here, so that nothing is pulled."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from arcforge.core.errors import TaskError
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.harbor import EnvironmentPart, HarborConfig, HarborTask
from arcforge.envs.terminal.images import PREFIX
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.images import Engine

pytestmark = [
    pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here"),
    pytest.mark.skipif(not (shutil.which("podman") and shutil.which("busybox")), reason="podman or busybox is missing"),
]
DOCKERFILE = b"""FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY --chmod=755 bash /bin/bash
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /usr/bin && ln -s /bin/env /usr/bin/env && echo built > /marker
ENV GREETING=hi
WORKDIR /app/sub
"""
BASH = b'#!/bin/sh\nif [ "$1" = -p ]; then shift; fi\nexec /bin/sh "$@"\n'
TESTS = b"""if [ "$(cat /marker)" = built ] && [ "$(cat /app/sub/out)" = "hi 1" ] && [ ! -e /trace ]; then
  echo 1 > /logs/verifier/reward.txt
else
  echo 0 > /logs/verifier/reward.txt
fi
"""


@pytest.fixture
def task():
    files = {
        "environment/Dockerfile": DOCKERFILE,
        "environment/bash": BASH,
        "environment/busybox": Path(shutil.which("busybox") or "").read_bytes(),
        "solution/solve.sh": b"echo x > /trace; echo $GREETING $ONE > out\n",
        "tests/test.sh": TESTS,
    }
    config = HarborConfig(environment=EnvironmentPart(env={"ONE": "1"}))
    return HarborTask("in-an-image", "do", config, files, frozenset({"environment/busybox"}))


def test_a_task_runs_in_the_image_that_its_dockerfile_makes(task):
    """Its Dockerfile is not one that can be followed over this machine's system; the second image is seen too."""

    async def work():
        engine = Engine()
        async with SandboxRunner(engine) as runner:
            found = await admit(task, runner, 1)
            again = await admit(replace(task, files={**task.files, "environment/more": b""}), runner, 1)
        _, listed, _ = await engine.run(["images", "--format", "{{.Repository}}"])
        names = {name for name in listed.decode().split() if name.startswith(PREFIX)}
        await engine.run(["rmi", "-f", *names], check=False)
        return found, again, names

    found, again, names = asyncio.run(asyncio.wait_for(work(), 300))
    assert found.admitted and found.outcomes["oracle-1"] == 1.0 and found.outcomes["nothing"] == 0.0, found
    assert again.admitted and len(names) >= 2, again


@pytest.mark.parametrize("dockerfile", [b"FROM scratch\nRUN nothing\n", None])
def test_an_image_that_cannot_be_made_is_the_tasks_failure(task, dockerfile):
    files = {path: raw for path, raw in task.files.items() if path != "environment/Dockerfile"}
    config = HarborConfig(environment=EnvironmentPart(docker_image="localhost/there-is-no-such-image"))
    if dockerfile is not None:
        files["environment/Dockerfile"] = dockerfile

    async def work():
        async with SandboxRunner(Engine()) as runner, runner.image(replace(task, files=files, config=config)):
            pass

    with pytest.raises(TaskError, match="image: podman"):
        asyncio.run(asyncio.wait_for(work(), 300))
