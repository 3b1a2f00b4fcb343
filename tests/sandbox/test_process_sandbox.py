"""ProcessSandbox against real processes."""

import asyncio
import os
import time

import pytest

from arcforge.core.errors import SandboxError
from arcforge.sandbox.folder import read_texts
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.process import ProcessSandbox
from arcforge.sandbox.unified import diff


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


async def in_sandbox(argv, timeout=10.0, stdin="", limits=None):
    box = ProcessSandbox(limits=limits)
    try:
        return await box.exec(argv, timeout, stdin)
    finally:
        await box.close()
        assert not box.root.exists()


def test_output_exit_code_and_stdin():
    result = run(in_sandbox(["sh", "-c", "cat; echo no >&2; exit 3"], stdin="hello"))
    assert (result.exit_code, result.stdout, result.stderr) == (3, "hello", "no\n")
    assert not result.timed_out and not result.truncated


def test_a_missing_program_is_an_exit_code():
    assert run(in_sandbox(["no-such-program"])).exit_code == 127


def test_wall_timeout_kills_the_whole_group():
    started = time.monotonic()
    result = run(in_sandbox(["sh", "-c", "sleep 60 & echo $!; wait"], timeout=0.3))
    assert result.timed_out and time.monotonic() - started < 5
    child = int(result.stdout)
    for _ in range(100):
        if _gone(child):
            break
        time.sleep(0.02)
    assert _gone(child)


def test_output_is_capped():
    result = run(in_sandbox(["sh", "-c", "yes | head -c 1000000"], limits=Limits(output_bytes=1000)))
    assert len(result.stdout) == 1000 and result.truncated and result.exit_code == 0


def test_limits_hold():
    cpu = run(in_sandbox(["sh", "-c", "while :; do :; done"], limits=Limits(cpu_seconds=1)))
    assert cpu.exit_code < 0 and not cpu.timed_out
    disk = run(in_sandbox(["sh", "-c", "head -c 100000 /dev/zero > big"], limits=Limits(file_bytes=4096)))
    assert disk.exit_code != 0
    memory = run(in_sandbox(["python3", "-c", "bytearray(1 << 29)"], limits=Limits(memory_bytes=256 << 20)))
    assert memory.exit_code == 1 and "MemoryError" in memory.stderr


def test_the_environment_is_small(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "secret")
    assert "secret" not in run(in_sandbox(["env"])).stdout


def test_paths_stay_inside():
    async def scenario():
        box = ProcessSandbox()
        await box.write("a/b.txt", "x")
        assert await box.read("a/b.txt") == "x" and await box.files() == ["a/b.txt"]
        os.symlink("/etc", box.root / "link")
        for path in ("../x", "/etc/hostname", "link/hostname", "a/../../x"):
            with pytest.raises(PermissionError):
                await box.read(path)
            with pytest.raises(PermissionError):
                await box.write(path, "x")
        with pytest.raises(FileNotFoundError):
            await box.read("none")
        await box.close()
        with pytest.raises(SandboxError):
            await box.files()

    run(scenario())


def test_diff_applies_with_patch(tmp_path):
    async def scenario():
        (tmp_path / "keep.py").write_text("a\nb\nc\n")
        (tmp_path / "gone.py").write_text("x\n")
        box = ProcessSandbox.copy_of(tmp_path)
        before = read_texts(box.root)
        await box.write("keep.py", "a\nB\nc")
        await box.write("new/file.py", "new\n")
        (box.root / "gone.py").unlink()
        after = read_texts(box.root)
        await box.close()
        return diff(before, after), after

    text, after = run(scenario())

    async def apply():
        box = ProcessSandbox.copy_of(tmp_path)
        result = await box.exec(["patch", "-p1", "--no-backup-if-mismatch"], stdin=text)
        patched = read_texts(box.root)
        await box.close()
        return result, patched

    result, patched = run(apply())
    assert result.exit_code == 0, result.stdout + result.stderr
    assert patched == after
    assert diff(after, after) == ""


def _gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_a_pipe_is_no_file_and_is_not_waited_for():
    async def work():
        sandbox = ProcessSandbox()
        os.mkfifo(sandbox.root / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            await sandbox.read("pipe")
        await sandbox.close()

    asyncio.run(work())
