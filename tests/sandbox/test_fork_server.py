"""The fork server: real forks, real crashes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arcforge.core.errors import SandboxError
from arcforge.sandbox.fork import FORK_LIMITS, ForkSandbox, ForkServer
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.limits import Limits


def with_server(scenario, ground=None, **options):
    async def work():
        async with ForkServer(ground=ground, **options) as server:
            return await scenario(server)

    return asyncio.run(asyncio.wait_for(work(), 60))


def limits(**changes):
    return Limits(**{**FORK_LIMITS.__dict__, **changes})


def test_runs_a_file_with_arguments(tmp_path):
    (tmp_path / "job.py").write_text("import sys, helper\nprint(helper.x, sys.argv[1:], __name__)\nsys.exit(3)\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    result = with_server(lambda server: server.run(tmp_path, ["job.py", "a"]), tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "1 ['a'] __main__\n", "")
    assert not (tmp_path / "__pycache__").exists()


def test_jobs_do_not_see_each_other(tmp_path):
    async def scenario(server):
        await server.run(tmp_path, ["-c"], code="import sys, json; json.dumps = None; sys.path.clear()")
        return await server.run(tmp_path, ["-c"], code="import json; print(json.dumps([1]))")

    assert with_server(scenario, tmp_path).stdout == "[1]\n"


def test_crashes_are_exit_codes(tmp_path):
    async def scenario(server):
        crash = await server.run(tmp_path, ["-c"], code="import os; os.kill(os.getpid(), 11)")
        error = await server.run(tmp_path, ["-c"], code="1/0")
        syntax = await server.run(tmp_path, ["-c"], code="def")
        silent = await server.run(tmp_path, ["-c"], code="import os; os._exit(0)")
        return crash, error, syntax, silent

    crash, error, syntax, silent = with_server(scenario, tmp_path)
    assert crash.exit_code == -11
    assert error.exit_code == 1 and "ZeroDivisionError" in error.stderr
    assert syntax.exit_code == 1 and "SyntaxError" in syntax.stderr
    assert silent.exit_code == 0


def test_timeout_kills_the_group_and_strays(tmp_path):
    code = """
import os, time
if os.fork() == 0:
    time.sleep(60)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open("stray", "w").write(str(os.getpid()))
    time.sleep(60)
time.sleep(60)
"""

    async def scenario(server):
        started = time.monotonic()
        result = await server.run(tmp_path, ["-c"], 0.5, code=code, limits=limits(processes=4096))
        return result, time.monotonic() - started, _jobs(server.pid)

    result, seconds, left = with_server(scenario, tmp_path)
    assert result.timed_out and result.exit_code == -signal.SIGKILL and seconds < 5
    if sys.platform == "linux":
        assert (tmp_path / "stray").exists() and left == []


def test_limits_and_cap(tmp_path):
    async def scenario(server):
        run = lambda code, **changes: server.run(tmp_path, ["-c"], 10, code=code, limits=limits(**changes))  # noqa: E731
        return await asyncio.gather(
            run("print('x' * 100000)", output_bytes=100),
            run("while True: pass", cpu_seconds=1),
            run("bytearray(1 << 30)"),
            run("open('big', 'wb').write(bytes(1 << 20))", file_bytes=1000),
        )

    output, cpu, memory, disk = with_server(scenario, tmp_path)
    assert len(output.stdout) == 100 and output.truncated and output.exit_code == 0
    assert cpu.exit_code < 0 and not cpu.timed_out
    assert memory.exit_code == 1 and "MemoryError" in memory.stderr
    assert disk.exit_code != 0


def test_many_concurrent_jobs_keep_their_own_answers(tmp_path):
    async def scenario(server):
        jobs = [server.run(tmp_path, ["-c", str(i)], code="import sys; print(sys.argv[1])") for i in range(100)]
        return await asyncio.gather(*jobs)

    assert [int(result.stdout) for result in with_server(scenario, tmp_path, concurrency=16)] == list(range(100))


def test_large_requests_and_answers(tmp_path):
    """More than a socket buffer in flight both ways."""

    async def scenario(server):
        code = f"print({'y' * 200_000!r})"
        return await asyncio.gather(
            *[server.run(tmp_path, ["-c"], 20, code=code, limits=limits(output_bytes=1 << 20)) for _ in range(8)]
        )

    assert all(result.stdout == "y" * 200_000 + "\n" for result in with_server(scenario, tmp_path))


def test_a_dead_server_raises_and_restarts(tmp_path):
    async def scenario(server):
        slow = asyncio.create_task(server.run(tmp_path, ["-c"], 30, code="import time; time.sleep(30)"))
        await asyncio.sleep(0.1)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            await slow
        return await server.run(tmp_path, ["-c"], code="print(1)")

    assert with_server(scenario, tmp_path).stdout == "1\n"


def test_a_missing_directory_is_a_sandbox_error(tmp_path):
    async def scenario(server):
        with pytest.raises(SandboxError):
            await server.run(tmp_path / "none", ["-c"], code="pass")

    with_server(scenario, tmp_path)


def test_cancelling_kills_the_job(tmp_path):
    async def scenario(server):
        task = asyncio.create_task(server.run(tmp_path, ["-c"], 60, code="import time; time.sleep(60)"))
        while not _jobs(server.pid):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if not _jobs(server.pid):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the job still runs")

    if sys.platform == "linux":
        with_server(scenario, tmp_path)


def test_close_reaps_everything_and_one_server_serves_two_loops(tmp_path):
    server = ForkServer(ground=tmp_path)

    async def scenario():
        return await server.run(tmp_path, ["-c"], code="print(2)")

    assert asyncio.run(scenario()).stdout == "2\n"
    assert asyncio.run(scenario()).stdout == "2\n"
    pid = server.pid
    assert pid

    async def close():
        task = asyncio.create_task(server.run(tmp_path, ["-c"], 60, code="import time; time.sleep(60)"))
        await asyncio.sleep(0.1)
        await server.close()
        with pytest.raises(SandboxError):
            await task

    asyncio.run(close())
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_ends_with_its_parent():
    """Killed without warning, the parent leaves nothing behind."""
    code = """
import os, signal
from arcforge.sandbox.fork import ForkServer
server = ForkServer()
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(result.stdout)
    for _ in range(500):
        if not _alive(pid):
            return
        time.sleep(0.02)
    raise AssertionError("the server outlived its parent")


def test_fork_sandbox_is_a_sandbox():
    async def scenario(server):
        box = ForkSandbox(server, server.new_directory({"a.py": "import sys\nprint('a', sys.argv[1])\n"}))
        try:
            file = await box.exec(["python", "a.py", "b"])
            text = await box.exec(["python", "-c", "print(3)"])
            with pytest.raises(ValueError):
                await box.exec(["ls"])
            return file.stdout, text.stdout
        finally:
            await box.close()

    assert with_server(scenario) == ("a b\n", "3\n")


def test_preloaded_scripts_run(tmp_path):
    script = tmp_path / "runner.py"
    script.write_text("import os, sys\nprint(os.getcwd(), sys.argv[0])\n")
    work = tmp_path / "work"
    work.mkdir()

    async def scenario(server):
        await server.run(work, ["-c"], code="pass")
        script.write_text("print('changed after the start')")
        return await server.run(work, [str(script)])

    assert with_server(scenario, tmp_path, preload=[script]).stdout == f"{work} {script}\n"


def test_the_server_process_stays_small(tmp_path):
    """No pydantic, no torch: a fork copies little."""

    async def scenario(server):
        return await server.run(tmp_path, ["-c"], code="import sys; print([m for m in sys.modules if 'pydantic' in m])")

    assert with_server(scenario, tmp_path).stdout == "[]\n"


@pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
def test_a_job_sees_its_own_directory_and_nothing_else(tmp_path):
    code = """
import os, socket
def tried(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
def connect():
    socket.create_connection(("127.0.0.1", PORT), 1)
print(os.listdir(".."), os.listdir("."), tried(lambda: os.listdir(os.path.expanduser("~root"))), tried(connect))
for path in ("/here", "/tmp/here", "/dev/here", "../here", "/usr/here", "/proc/sys/vm/swappiness", "here"):
    print(path, tried(lambda: open(path, "a").close() or "written"))
print([tried(lambda: os.kill(1, 9)), tried(lambda: os.setuid(0)), tried(lambda: open("/proc/1/environ").read())])
"""

    async def scenario(server):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            other, own = server.new_directory({"secret": "x"}), server.new_directory({"mine": "y"})
            result = await server.run(own, ["-c"], code=code.replace("PORT", str(port)))
            return result, other, own, (own / "here").exists()

    result, other, own, written = with_server(scenario)
    first, *places, last = result.stdout.splitlines()
    assert first.startswith(f"['{own.name}'] ['mine']") and other.name not in first, result.stderr
    assert first.endswith("ConnectionRefusedError") and "FileNotFoundError" in first
    assert [line.split()[1] for line in places] == ["OSError"] * 6 + ["written"] and written
    assert last == "[None, 'OSError', 'PermissionError']"  # process 1 takes no signal from inside


def _jobs(pid):
    """Children of the server: itself, or process 1 of the namespace that bubblewrap made."""
    if not bubblewrap_works():
        return _children(pid)
    return [job for first in _children(pid) for job in _children(first)]


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
