"""Programs of their own: what they leave behind, and what is left when whoever started them is killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arcforge.core.errors import SandboxError
from arcforge.sandbox import program
from arcforge.sandbox.program import KEPT, TAIL_BYTES, Program

NOTHING = Path("/dev/null")

KILLED = """
import asyncio, os, pathlib, sys
from arcforge.sandbox.program import Program

async def main():
    argv = ["sh", "-c", "sleep 300 & echo $! $$ > new; setsid sleep 300 & echo $! >> new; mv new pids; exec sleep 300"]
    async with Program(argv, pathlib.Path(sys.argv[1]), {}, pathlib.Path(os.devnull)):
        while not os.path.exists(f"{sys.argv[1]}/pids"):
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def run(argv, folder, seconds=20.0, environment=None, stdin=NOTHING, ready=None):
    """(exit code, last words). ready: a file that is there before the seconds count."""

    async def work():
        async with Program(argv, folder, environment or {}, stdin) as running:
            while ready and not (folder / ready).exists():
                await asyncio.sleep(0.02)
            return await running.wait(seconds), running.last_words

    return asyncio.run(asyncio.wait_for(work(), 60))


def dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_it_has_its_directory_its_input_and_a_small_environment(tmp_path, monkeypatch):
    (tmp_path / "input").write_text("from the file")
    monkeypatch.setenv("SECRET_KEY", "mine")
    script = "env > seen; echo out; echo last words >&2; exit 3"
    ended = run(["sh", "-c", script], tmp_path, environment={"ADDED": "one"}, stdin=tmp_path / "input")
    assert ended == (3, "last words")
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["ADDED"] == "one" and seen["PATH"] == os.environ["PATH"] and seen["PWD"] == str(tmp_path)
    assert seen.keys() <= {*KEPT, "ADDED", "PWD", "OLDPWD", "SHLVL", "_"}, "this user's keys are no business of its"
    code, words = run(["cat"], tmp_path, stdin=tmp_path / "input")
    assert (code, words) == (0, "from the file")


def test_words_are_the_end_of_a_stream_and_stdout_where_stderr_is_silent(tmp_path):
    code, words = run([sys.executable, "-c", "print('a' * 100_000 + 'z')"], tmp_path)
    assert code == 0 and len(words) <= TAIL_BYTES and words.endswith("z")


def test_one_that_is_killed_and_one_that_is_not_there(tmp_path):
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE, signal.SIGTERM):
        assert run(["sh", "-c", f"kill -{number} $$"], tmp_path)[0] == -number
    code, words = run(["no-such-program"], tmp_path)
    assert code == 127 and "no-such-program" in words
    with pytest.raises(SandboxError, match="cannot start sh"):
        run(["sh", "\0"], tmp_path)
    with pytest.raises(SandboxError, match="cannot start sh"):
        run(["sh"], tmp_path / "gone")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_at_its_timeout_it_ends_with_its_group(tmp_path):
    script = "echo busy >&2; sleep 300 & echo $! > new; mv new pid; sleep 300"
    started = time.monotonic()
    assert run(["sh", "-c", script], tmp_path, seconds=0.2, ready="pid") == (None, "busy")
    assert time.monotonic() - started < 30 and dead((tmp_path / "pid").read_text().strip())


DAEMON = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
DAEMON += "print(os.getpid(), file=open('daemon', 'w'), flush=True); time.sleep(300)"


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come back on Linux")
@pytest.mark.parametrize("ending", ["exit 0", "exec sleep 300"])
def test_what_left_its_session_ends_with_it(tmp_path, ending):
    script = f'"$0" -c "$1" & (setsid sleep 300 & echo $! > pid); while ! test -s daemon; do sleep 0.02; done; {ending}'
    code, _ = run(
        ["sh", "-c", script, sys.executable, DAEMON],
        tmp_path,
        seconds=0.5 if ending != "exit 0" else 20,
        ready="daemon",
    )
    assert code == (0 if ending == "exit 0" else None)
    assert all(dead((tmp_path / name).read_text().strip()) for name in ("daemon", "pid"))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_one_that_stops_its_keeper_is_ended_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "END_SECONDS", 5.0)
    script = "setsid sleep 300 & echo $! > far; kill -STOP $PPID; echo $$ > new; mv new pid; exec sleep 300"
    assert run(["sh", "-c", script], tmp_path, seconds=0.1, ready="pid")[0] is None
    end = time.monotonic() + 10
    while not all(dead((tmp_path / name).read_text().strip()) for name in ("pid", "far")):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_nothing_of_it_outlives_whoever_started_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    pids, end = (tmp_path / "pids").read_text().split(), time.monotonic() + 10
    assert len(pids) == 3
    while not all(map(dead, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)
