"""The warm pool, and images of podman as sandboxes."""

import asyncio
import os
import shutil

import pytest

from arcforge.core.errors import SandboxError, UserError
from arcforge.sandbox.container import ContainerSandbox
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.images import Engine
from arcforge.sandbox.overlay import OverlaySandboxes
from arcforge.sandbox.pool import Pool
from arcforge.sandbox.process import ProcessSandbox

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
needs_podman = pytest.mark.skipif(
    not all(map(shutil.which, ("podman", "runc", "busybox"))) or os.geteuid() != 0,
    reason="podman, runc and a static busybox, run by root, are needed",
)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 300))


def test_a_pool_hands_each_sandbox_out_once_and_closes_the_rest():
    made = []

    async def create():
        made.append(ProcessSandbox())
        return made[-1]

    async def work():
        async with Pool(create, 3) as pool:
            await pool.full()
            assert len(made) == 3
            taken = [await pool.take() for _ in range(5)]
            assert len({id(box) for box in taken}) == 5
            for box in taken:
                await box.close()
            await pool.full()

    run(work())
    assert not any(box.root.exists() for box in made)


def test_a_pool_tells_why_it_has_none_and_goes_on():
    tries = []

    async def create():
        tries.append(1)
        if len(tries) < 3:
            raise SandboxError("no room")
        return ProcessSandbox()

    async def work():
        async with Pool(create, 1, makers=1) as pool:
            for _ in range(2):
                with pytest.raises(SandboxError, match="no room"):
                    await pool.take()
            await (await pool.take()).close()

    async def never():
        async with Pool(lambda: asyncio.sleep(60), 1) as pool:
            with pytest.raises(SandboxError, match=r"within 0 s"):
                await pool.take(0.05)

    run(work())
    run(never())


def test_an_engine_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="podman is not installed"):
        Engine()


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(shutil.which("busybox"), folder / "busybox")
    (folder / "hello").write_text("from the image\n")
    (folder / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY hello /data/hello\n"
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]\nRUN echo built > /data/built\nENV GREETING=hi\nWORKDIR /data\n'
    )
    return folder


@needs_podman
@needs_bubblewrap
@pytest.mark.slow
def test_an_image_is_built_and_runs_as_an_overlay_and_as_a_container(context):
    async def exercise(box):
        assert (
            await box.exec(["sh", "-c", "cat hello built; echo $GREETING; pwd"], 60)
        ).stdout == "from the image\nbuilt\nhi\n/data\n"
        await box.write("sub/new", "text\n")
        assert await box.read("sub/new") == "text\n"
        with pytest.raises(FileNotFoundError):
            await box.read("none")
        slow = await box.exec(["sh", "-c", "sleep 60"], 1.5)
        assert slow.timed_out and slow.exit_code == -9
        fork = await box.fork()
        try:
            await fork.write("sub/new", "fork\n")
            assert await box.read("sub/new") == "text\n" and await fork.read("sub/new") == "fork\n"
        finally:
            await fork.close()
        return {change.path for change in await box.changes()}, await box.files()

    async def work():
        engine = Engine()
        image = await engine.build(context, "localhost/arcforge-test")
        try:
            async with await ContainerSandbox.create(engine, image) as container:
                changed, files = await exercise(container)
                assert "sub/new" in changed and files == ["built", "hello", "sub/new"]
            async with OverlaySandboxes() as boxes, await boxes.create(image.spec()) as box:
                assert await exercise(box) == ({"sub/new"}, ["built", "hello", "sub/new"])
        finally:
            await engine.forget(image)
            await engine.run(["rmi", "-f", image.name], check=False)

    run(work())
