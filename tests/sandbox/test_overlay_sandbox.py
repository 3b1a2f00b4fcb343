"""Sandboxes of bubblewrap and overlayfs: what works inside, and what does not get out."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from arcforge.core.errors import SandboxError
from arcforge.sandbox.cgroups import places
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.overlay import BOX_LIMITS, OverlaySandboxes

pytestmark = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")


def in_sandbox(scenario, folder=None, **limits):
    """scenario(box, boxes) in a fresh sandbox over `folder`."""

    async def work():
        async with OverlaySandboxes() as boxes:
            spec = boxes.host(folder, replace(BOX_LIMITS, **limits))
            async with await boxes.create(spec) as box:
                return await scenario(box, boxes)

    return asyncio.run(asyncio.wait_for(work(), 120))


def sh(box, script, timeout=30.0, **more):
    return box.exec(["sh", "-c", script], timeout, **more)


def repository(tmp_path):
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    (folder / "package/a.py").write_text("one\ntwo\n")
    (folder / "package/b.py").write_text("b\n")
    (folder / "read.me").write_text("hello\n")
    return folder


def test_commands_files_and_input(tmp_path):
    async def scenario(box, boxes):
        await box.write("new/file.txt", "text\n")
        result = await sh(box, "cat; cat new/file.txt; echo $0 $X; pwd; exit 3", stdin="given\n", env={"X": "y"})
        assert (result.exit_code, result.stdout) == (3, "given\ntext\nsh y\n/workspace\n")
        assert (await box.exec(["no-such-program"])).exit_code == 127
        assert (await box.exec(["python", "-c", "import sys; print(sys.version_info[0])"])).stdout == "3\n"
        assert await box.files() == ["new/file.txt", "package/a.py", "package/b.py", "read.me"]
        for path, error in (("none", FileNotFoundError), ("package", IsADirectoryError), ("new/file.txt/x", OSError)):
            with pytest.raises(error):
                await box.read(path)
        await sh(box, "printf '\\377' > raw; mkfifo pipe; head -c 2000000 /dev/zero > large")
        for path, error in (("raw", UnicodeDecodeError), ("pipe", OSError), ("large", OSError)):
            with pytest.raises(error):
                await box.read(path)

    in_sandbox(scenario, repository(tmp_path))


def test_the_folder_stays_and_the_diff_tells_what_changed(tmp_path):
    folder = repository(tmp_path)
    before = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}

    async def scenario(box, boxes):
        await sh(
            box, "echo three >> package/a.py; rm package/b.py; mv read.me README; chmod +x README; ln -s README link"
        )
        await sh(
            box, "touch package/a.py; mkdir -p deep/er; echo x > deep/er/f; echo y > /etc/new; touch /usr/bin/mine"
        )
        kinds = {change.path: change.kind for change in await box.changes()}
        assert kinds == {
            "README": "added", "deep/er/f": "added", "link": "added", "package/a.py": "changed", "package/b.py": "removed",
            "read.me": "removed",
        }  # fmt: skip
        assert [change.path for change in await box.changes("/usr")] == ["bin/mine"]
        return await box.diff()

    text = in_sandbox(scenario, folder)
    assert {path: path.read_text() for path in folder.rglob("*") if path.is_file()} == before
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "apply", "-"], input=text, text=True, cwd=folder, check=True)
    assert (folder / "package/a.py").read_text() == "one\ntwo\nthree\n" and not (folder / "package/b.py").exists()
    assert (folder / "README").read_text() == "hello\n" and (folder / "deep/er/f").read_text() == "x\n"


def test_a_directory_that_was_removed_and_made_again_hides_the_old_one(tmp_path):
    async def scenario(box, boxes):
        await sh(
            box, "rm -r package; mkdir package; echo new > package/c.py; rm read.me; mkdir read.me; echo z > read.me/z"
        )
        fork = await box.fork()
        await sh(fork, "rm package/c.py; rm -r read.me; echo back > read.me")
        of_fork = {change.path: (change.kind, change.before, change.after) for change in await fork.changes()}
        return {change.path: change.kind for change in await box.changes()}, of_fork

    changed, of_fork = in_sandbox(scenario, repository(tmp_path))
    assert changed == {
        "package/a.py": "removed", "package/b.py": "removed", "package/c.py": "added", "read.me": "removed", "read.me/z": "added",
    }  # fmt: skip
    assert of_fork["package/c.py"] == ("removed", "new\n", None)
    assert of_fork["read.me/z"] == ("removed", "z\n", None) and of_fork["read.me"] == ("added", None, "back\n")


def test_forks_are_apart(tmp_path):
    async def scenario(box, boxes):
        await box.write("read.me", "first\n")
        snapshot = await box.snapshot()
        one, two = await asyncio.gather(snapshot.create(), snapshot.create())
        await one.write("read.me", "one\n")
        await box.write("read.me", "parent\n")
        grandchild = await one.fork()
        await snapshot.drop()
        with pytest.raises(SandboxError, match="dropped"):
            await snapshot.create()
        await one.close()
        late = await two.fork()  # of a sandbox whose snapshot was dropped
        texts = [await each.read("read.me") for each in (box, late, two, grandchild)]
        await asyncio.gather(*(each.close() for each in (late, two, grandchild)))
        layers = [path for path in mounts(boxes) if "layer-" in path]
        return texts, layers

    assert in_sandbox(scenario, repository(tmp_path)) == (["parent\n", "first\n", "first\n", "one\n"], [])


ESCAPES = {
    "no file of the host": "cat /etc/shadow HOST/secret",
    "no descriptor left open": "ls -l /proc/1/fd /proc/self/fd | grep -v /dev/null | grep -E 'socket|/tmp|HOST'",
    "no namespaces": "unshare -U true || unshare -m true",
    "no mount": "mount -t tmpfs none /mnt || mount -o remount,rw /proc/sys",
    "no kernel settings": "cat /proc/sys/vm/swappiness > x && cat x > /proc/sys/vm/swappiness",
    "no system request": "echo h > /proc/sysrq-trigger",
    "no memory of the kernel": "head -c 1 /proc/kcore | grep -q . || head -c 1 /proc/kmsg | grep -q .",
    "no devices": "mknod disk b 8 0 && head -c 1 disk",
    "no user": "su nobody -c true || chown nobody read.me",
    "no network": "python -c \"import socket; socket.create_connection(('127.0.0.1', PORT), 1)\"",
    "no other machine": "python -c \"import socket; socket.create_connection(('192.0.2.1', 80), 1)\"",
    "no control groups": "mount -t cgroup2 none /mnt || mkdir /sys/fs/cgroup/x",
    "no reboot": 'python -c "import ctypes,sys; sys.exit(ctypes.CDLL(None).reboot(0x1234567) != 0)"',
}


def test_nothing_gets_out(tmp_path):
    import socket

    (tmp_path / "secret").write_text("secret")

    async def scenario(box, boxes):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = str(listener.getsockname()[1])
            for name, script in ESCAPES.items():
                result = await sh(box, script.replace("PORT", port).replace("HOST", str(tmp_path)))
                assert result.exit_code not in (0, 125), f"{name}: {result}"
                assert "secret" not in result.stdout

    in_sandbox(scenario, repository(tmp_path))


def test_links_lead_nowhere_outside(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = repository(tmp_path)

    async def scenario(box, boxes):
        await sh(
            box,
            f"ln -s {tmp_path}/secret one; ln -s /etc/shadow two; ln -s /proc/1/root/etc/hostname three; ln -s / top",
        )
        for path in ("one", "two", "three", f"top{tmp_path}/secret", f"../../../..{tmp_path}/secret"):
            with pytest.raises(OSError):
                await box.read(path)
        await sh(box, f"mkdir -p {tmp_path}; ln -sf {tmp_path}/secret package/a.py")
        await box.write("package/a.py", "written inside\n")
        await sh(box, f"rm -r package; ln -s {tmp_path} package")
        assert (tmp_path / "secret").read_text() == "secret"
        kinds = {change.path: change.after for change in await box.changes() if change.kind == "added"}
        assert kinds["package"] == str(tmp_path) and "secret" not in (await box.diff()).replace(
            f"{tmp_path}/secret", ""
        )

    in_sandbox(scenario, folder)


def test_daemons_and_killers_are_gone_with_kill_and_close(tmp_path):
    mark = f"sleep {os.getpid()}123"

    async def scenario(box, boxes):
        await sh(
            box,
            f"setsid {mark} & (setsid {mark} </dev/null >/dev/null 2>&1 &) ; (trap '' TERM HUP; {mark}) & sleep 0.2",
        )
        running = len(pids(mark))
        await box.kill()
        assert await settled(lambda: not pids(mark))
        await sh(box, "kill -9 -1; kill -9 1; pkill -9 sleep")
        alive = await sh(box, "echo alive")
        await sh(box, f"setsid {mark} >/dev/null 2>&1 & sleep 0.1")
        await box.close()
        with pytest.raises(SandboxError):
            await box.exec(["true"])
        await box.close()
        return running, alive.stdout, pids(mark)

    assert in_sandbox(scenario, repository(tmp_path)) == (3, "alive\n", [])


def test_bombs_stay_inside(tmp_path):
    async def scenario(box, boxes):
        fork = await sh(box, "python -c 'import os\nwhile True: os.fork()'", 3.0)
        assert fork.exit_code != 0
        await box.kill()
        assert await settled_inside(box)
        memory = await sh(box, "python -c 'x = bytearray(1 << 30); print(len(x))'")
        assert memory.exit_code != 0 and "1073741824" not in memory.stdout
        disk = await sh(box, "head -c 200000000 /dev/zero > full; ls -l full | cut -d' ' -f5; df . | tail -1")
        assert disk.stdout and int(disk.stdout.split()[0]) < 65 << 20, disk
        await sh(box, "rm -f full")
        many = await sh(box, "head -c 40000000 /dev/zero > /tmp/a; head -c 40000000 /dev/zero > b; stat -c %s /tmp/a b")
        assert sum(map(int, many.stdout.split())) < 65 << 20
        flood = await sh(box, "yes | head -c 10000000")
        assert flood.truncated and len(flood.stdout) == box.spec.limits.output_bytes
        slow = await sh(box, "sleep 60", 0.3)
        assert slow.timed_out and slow.exit_code == -signal.SIGKILL and slow.seconds < 5
        assert (await sh(box, "rm -f /tmp/a b full; echo alive")).stdout == "alive\n"
        return await box.stats()

    limits = {"processes": 64, "memory_bytes": 256 << 20, "disk_bytes": 64 << 20}
    assert "disk_bytes" in in_sandbox(scenario, repository(tmp_path), **limits)


def test_the_end_of_the_parent_is_the_end_of_all(tmp_path):
    mark = f"sleep {os.getpid()}456"
    code = f"""
import asyncio, os, signal
from arcforge.sandbox.overlay import OverlaySandboxes
async def main():
    boxes = OverlaySandboxes()
    box = await boxes.create(boxes.host())
    await box.exec(["sh", "-c", "setsid {mark} >/dev/null 2>&1 &"])
    print(boxes._server.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    server = int(done.stdout)
    assert asyncio.run(settled(lambda: not pids(mark) and not Path(f"/proc/{server}").exists()))
    assert "arcforge-boxes" not in Path("/proc/mounts").read_text()


def test_hostile_trees_end_no_server(tmp_path):
    async def scenario(box, boxes):
        deep = "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nopen('end', 'w').close()"
        assert (await box.exec(["python", "-c", deep], 60)).exit_code == 0
        with pytest.raises(SandboxError, match="cannot tell the changes"):
            await box.changes()
        async with await boxes.create(box.spec) as other:
            await other.exec(
                ["python", "-c", "open(b'bad-\\xff', 'w').close(); import os; os.symlink(b'\\xfe', 'link')"]
            )
            return {change.path: change.after for change in await other.changes()}, await other.files()

    changed, files = in_sandbox(scenario, repository(tmp_path))
    assert changed == {"bad-\ufffd": "", "link": "\ufffd"} and "bad-\ufffd" in files


def test_who_is_root_in_a_namespace_only_has_sandboxes_too():
    """As an ordinary user has them: other marks in the upper directories, no control groups."""
    code = """
import asyncio
from arcforge.sandbox.overlay import OverlaySandboxes
async def main():
    async with OverlaySandboxes() as boxes, await boxes.create(boxes.host()) as box:
        await box.exec(["sh", "-c", "mkdir d; echo one > d/f; echo two > g"])
        async with await box.fork() as fork:
            await fork.exec(["sh", "-c", "rm -r d; mkdir d; echo three > d/h; rm g"])
            print([(change.path, change.kind) for change in await fork.changes()], await box.read("d/f"))
asyncio.run(main())
"""
    own = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run([*own, sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "[('d/f', 'removed'), ('d/h', 'added'), ('g', 'removed')] one\n\n", done.stderr


def test_control_groups_of_a_living_server_stay_and_of_a_killed_one_go(tmp_path):
    """Also for a server that sees other process ids, and for one that is idle."""
    found = places(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    if not any(os.access(place.path, os.W_OK) for place in found.values()):
        pytest.skip("no control group may be made here")
    code = "import sys; from arcforge.sandbox.cgroups import Cgroups; g = Cgroups(sys.argv[1]); print('up', flush=True); input()"
    name = f"sweeptest{os.getpid()}"

    def server(which, *own):
        process = subprocess.Popen(
            [*own, sys.executable, "-c", code, f"{name}-{which}"], stdin=-1, stdout=-1, text=True
        )
        assert process.stdout.readline()
        return process

    def groups():
        return sorted({path.name for place in found.values() for path in place.path.glob(f"{name}-*")})

    living, killed = server("1-living"), server("2-killed")
    held = groups()
    killed.kill()
    killed.wait(20)
    stranger = server("3-stranger", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    assert (
        held == [f"{name}-1-living", f"{name}-2-killed"]
        and f"{name}-2-killed" not in groups()
        and f"{name}-1-living" in groups()
    )
    for process in (living, stranger):
        process.kill()
        process.wait(20)
    last = server("4-last")
    assert groups() == [f"{name}-4-last"]
    last.kill()
    last.wait(20)
    for place in found.values():
        for path in place.path.glob(f"{name}-*"):
            path.rmdir()


def test_a_dead_server_is_an_error_and_a_new_one_starts(tmp_path):
    async def scenario(box, boxes):
        os.kill(boxes._server.pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            await box.exec(["sleep", "5"])
        with pytest.raises(SandboxError):
            await box.read("read.me")
        async with await boxes.create(box.spec) as other:
            return (await other.exec(["echo", "again"])).stdout

    assert in_sandbox(scenario, repository(tmp_path)) == "again\n"


def test_many_at_once(tmp_path):
    async def scenario(box, boxes):
        others = await asyncio.gather(*(boxes.create(box.spec) for _ in range(20)))
        await asyncio.gather(*(other.write("name", str(place)) for place, other in enumerate(others)))
        said = await asyncio.gather(*(other.exec(["cat", "name"], 30) for other in others))
        await asyncio.gather(*(other.close() for other in others))
        return [int(result.stdout) for result in said]

    assert in_sandbox(scenario, repository(tmp_path)) == list(range(20))


def test_a_sandbox_that_cannot_be_made_says_why(tmp_path):
    async def scenario(box, boxes):
        with pytest.raises(SandboxError, match="none-such"):
            await boxes.create(boxes.host(tmp_path / "none-such"))
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(SandboxError, match="bwrap"):
            await boxes.create(replace(box.spec, overlays={"/": (str(empty),)}, read_only={}))
        return (await box.exec(["echo", "fine"])).stdout

    assert in_sandbox(scenario, repository(tmp_path)) == "fine\n"


def mounts(boxes):
    """Mount points in the server's own namespace."""
    return [line.split()[1] for line in Path(f"/proc/{boxes._server.pid}/mounts").read_text().splitlines()]


def test_who_kills_all_others_is_killed(tmp_path):
    async def scenario(box, boxes):
        await sh(box, "(setsid bash -c 'while :; do kill -9 -1; done' >/dev/null 2>&1 &); sleep 0.1")
        for _ in range(20):
            try:
                await box.read("read.me")
            except InterruptedError:
                break
        else:
            raise AssertionError("the killer did not work")
        await box.kill()
        return await box.read("read.me"), (await sh(box, "ps ax | grep -c 'kill -9'")).stdout

    assert in_sandbox(scenario, repository(tmp_path)) == ("hello\n", "2\n")  # the shell and its grep


def test_planted_tools_on_the_path_are_not_the_sandboxes_own(tmp_path):
    folder = repository(tmp_path)
    for name in ("env", "cat", "sleep", "sh", "true", "bwrap"):
        (folder / name).write_text("#!/bin/bash\nexit 0\n")
        (folder / name).chmod(0o755)

    async def scenario(box, boxes):
        spec = replace(box.spec, env={**box.spec.env, "PATH": "/workspace:/usr/bin:/bin"})
        for _ in range(10):
            async with await boxes.create(spec) as other:
                await other.exec(
                    ["/bin/bash", "-c", "for n in env cat sleep; do cp /workspace/env /usr/local/bin/$n; done"]
                )
                await other.kill()
                assert (await other.exec(["/bin/echo", "alive"])).stdout == "alive\n"
        return True

    assert in_sandbox(scenario, folder)


def test_states_and_removal(tmp_path):
    async def scenario(box, boxes):
        await sh(box, "ln -s /etc link; mkdir -p d/e; touch d/e/f")
        assert stat.S_ISLNK((await box.stat("link")).mode)
        state = await box.stat("read.me")
        assert stat.S_ISREG(state.mode) and state.size == 6 and state.modified > 1e9
        await box.remove("d")
        for wrong in (box.stat("d"), box.remove("link"), box.remove("none")):
            with pytest.raises(OSError):
                await wrong
        return (await sh(box, "ls -d /etc/passwd")).exit_code

    assert in_sandbox(scenario, repository(tmp_path)) == 0


def test_a_command_cannot_pass_for_broken_machinery(tmp_path):
    async def scenario(box, boxes):
        forged = await sh(box, "echo 'cannot enter the sandbox: broken' >&2; exit 125")
        await sh(box, "mkdir gone; chmod 644 read.me")
        there = (await box.exec(["./read.me"])).exit_code
        await sh(box, "rmdir gone")
        return forged.exit_code, there, (await box.exec(["true"], directory="/workspace/gone")).exit_code

    assert in_sandbox(scenario, repository(tmp_path)) == (125, 126, 126)


async def settled(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def settled_inside(box):
    """All but the first process are gone and reaped."""
    for _ in range(200):
        if (await box.stats()).get("processes", 0) <= 2:
            return True
        await asyncio.sleep(0.02)
    return False


def pids(mark):
    """Processes anywhere on this machine whose command is `mark`."""
    wanted, found = mark.replace(" ", "\0") + "\0", []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if (folder / "cmdline").read_text() == wanted and state != "Z":
                found.append(int(folder.name))
        except OSError:
            continue
    return found
