"""Programs of their own: what they leave behind, and what is left when whoever started them is killed."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from arcforge.core.errors import SandboxError
from arcforge.sandbox.program import TAIL_BYTES, Program

NOTHING = Path("/dev/null")

KILLED = """
import asyncio, os, pathlib, sys
from arcforge.sandbox.program import Program

async def main():
    argv = ["sh", "-c", "sleep 300 & echo $! $$ > pids; exec sleep 300"]
    async with Program(argv, pathlib.Path(sys.argv[1]), {}, pathlib.Path(os.devnull)):
        while not os.path.exists(f"{sys.argv[1]}/pids"):
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def run(argv, folder, seconds=20.0, environment=None, stdin=NOTHING):
    async def work():
        async with Program(argv, folder, environment or {}, stdin) as program:
            return await program.wait(seconds), program.last_words

    return asyncio.run(asyncio.wait_for(work(), 30))


def dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_it_has_its_directory_its_input_and_its_environment(tmp_path):
    (tmp_path / "input").write_text("from the file")
    script = 'echo "$(cat) $ADDED $HOME" > seen; echo out; echo last words >&2; exit 3'
    assert run(["sh", "-c", script], tmp_path, environment={"ADDED": "one"}, stdin=tmp_path / "input") == (
        3,
        "last words",
    )
    assert (tmp_path / "seen").read_text().startswith("from the file one /")


def test_words_are_the_end_of_a_stream_and_stdout_where_stderr_is_silent(tmp_path):
    code, words = run([sys.executable, "-c", "print('a' * 100_000 + 'z')"], tmp_path)
    assert code == 0 and len(words) <= TAIL_BYTES and words.endswith("z")


def test_one_that_is_killed_and_one_that_is_not_there(tmp_path):
    assert run(["sh", "-c", "kill -SEGV $$"], tmp_path)[0] == -11
    code, words = run(["no-such-program"], tmp_path)
    assert code == 127 and "no-such-program" in words
    with pytest.raises(SandboxError, match="cannot start sh"):
        run(["sh", "\0"], tmp_path)
    with pytest.raises(SandboxError, match="cannot start sh"):
        run(["sh"], tmp_path / "gone")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_at_its_timeout_it_ends_with_its_group(tmp_path):
    started = time.monotonic()
    code, words = run(["sh", "-c", "sleep 300 & echo $! > pid; echo busy >&2; sleep 300"], tmp_path, seconds=0.5)
    assert code is None and words == "busy" and time.monotonic() - started < 10
    assert dead((tmp_path / "pid").read_text().strip())


@pytest.mark.skipif(sys.platform != "linux", reason="setsid is Linux's")
def test_what_left_the_group_with_the_pipes_is_not_waited_for(tmp_path):
    started = time.monotonic()
    script = "setsid sleep 5 & echo $! > pid; sleep 0.3; echo done"
    assert run(["sh", "-c", script], tmp_path) == (0, "done")
    assert time.monotonic() - started < 4.5


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_nothing_of_it_outlives_whoever_started_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    pids, end = (tmp_path / "pids").read_text().split(), time.monotonic() + 10
    assert len(pids) == 2
    while not all(map(dead, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)
