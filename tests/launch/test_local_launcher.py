"""The launcher with real processes: death, silence, stubbornness, and a parent killed with SIGKILL."""

import os
import signal
import subprocess
import sys
import time

import pytest

from arcforge.launch.heartbeat import Heartbeat, age
from arcforge.launch.local import ComponentDied, ComponentHung, LocalLauncher, free_port

PYTHON = [sys.executable, "-I", "-S", "-c"]
SLEEP = [*PYTHON, "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def launcher(tmp_path):
    with LocalLauncher(tmp_path / "logs") as running:
        yield running


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def eventually(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_component_runs_to_its_end_with_its_own_log_and_one_thread(launcher):
    script = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'], os.environ['EXTRA'])"
    component = launcher.start("trainer", [*PYTHON, script], env={"EXTRA": "yes"})
    launcher.wait("trainer", timeout=10)
    assert component.log.read_text() == "1 PASSIVE yes\n"


def test_death_is_noticed_while_waiting_for_another_and_tells_the_end_of_the_log(launcher):
    launcher.start("trainer", SLEEP)
    launcher.start("engine", [*PYTHON, "import time; time.sleep(0.1); print('line one'); raise SystemExit('boom')"])
    started = time.monotonic()
    with pytest.raises(ComponentDied, match="engine ended with code 1") as caught:
        launcher.wait("trainer", timeout=30)
    assert time.monotonic() - started < 5
    assert caught.value.name == "engine" and caught.value.exit_code == 1 and "boom" in caught.value.tail


def test_a_component_that_cannot_start_says_so(launcher):
    launcher.start("engine", ["/no/such/program"])
    with pytest.raises(ComponentDied, match="cannot start /no/such/program: No such file") as caught:
        launcher.wait("engine", timeout=10)
    assert caught.value.exit_code == 127


def test_waiting_has_a_timeout_and_an_early_end_is_not_readiness(launcher):
    launcher.start("slow", SLEEP)
    with pytest.raises(ComponentHung, match=r"did not finish within 0.2 s"):
        launcher.wait("slow", timeout=0.2)
    with pytest.raises(ComponentHung, match=r"was not ready within 0.2 s"):
        launcher.wait_ready("slow", lambda: False, timeout=0.2)
    launcher.start("brief", [*PYTHON, "pass"])
    with pytest.raises(ComponentDied, match="brief ended with code 0"):
        launcher.wait_ready("brief", lambda: False, timeout=10)
    log = launcher.start("again", SLEEP).log
    launcher.wait_ready("again", lambda: log.exists() and "up" in log.read_text(), timeout=10)


def test_silence_is_noticed_and_beating_is_not(launcher, tmp_path):
    beat = tmp_path / "beats" / "engine"
    loop = f"import time, pathlib\nwhile True:\n    pathlib.Path({str(beat)!r}).touch()\n    time.sleep(0.05)"
    Heartbeat(beat).beat()
    os.utime(beat, (0, 0))  # a file from an earlier run
    component = launcher.start("engine", [*PYTHON, loop], heartbeat=beat, heartbeat_timeout=1.0)
    assert eventually(lambda: age(beat) < 1)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        launcher.check()
        time.sleep(0.05)
    os.kill(component.process.pid, signal.SIGSTOP)
    with pytest.raises(ComponentHung, match=r"engine is silent for 1 s"):
        launcher.wait("engine", timeout=20)
    launcher.stop(grace=0.1)
    assert age(tmp_path / "nothing") is None


def test_stop_is_orderly_then_thorough(tmp_path):
    """The polite one says goodbye; the stubborn one and the child it left in its group are killed."""
    launcher = LocalLauncher(tmp_path)
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('bye'), sys.exit(0)))\n"
    log = launcher.start("polite", [*PYTHON, polite + "print('up', flush=True)\ntime.sleep(60)"]).log
    stubborn = (
        "import signal, subprocess, sys, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\ntime.sleep(60)"
    )
    component = launcher.start("stubborn", [*PYTHON, stubborn])
    launcher.wait_ready("polite", lambda: "up" in log.read_text(), timeout=10)
    launcher.wait_ready("stubborn", lambda: component.log.read_text().endswith("\n"), timeout=10)
    grandchild = int(component.log.read_text())
    started = time.monotonic()
    launcher.stop(grace=0.5)
    assert time.monotonic() - started < 8
    assert log.read_text() == "up\nbye\n" and component.exit_code == -signal.SIGKILL
    assert eventually(lambda: not alive(grandchild))


def test_a_name_is_used_once_at_a_time(launcher):
    launcher.start("engine", SLEEP)
    with pytest.raises(ValueError, match="is running"):
        launcher.start("engine", SLEEP)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_components_die_with_a_parent_that_is_killed(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom arcforge.launch.local import LocalLauncher\n"
        "running = LocalLauncher(Path(sys.argv[1]))\n"
        "pids = [running.start(n, [sys.executable, '-c', 'import time; time.sleep(60)']).process.pid for n in 'ab']\n"
        "print(*pids, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        time.sleep(0.2)
        parent.kill()
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_free_ports_can_be_bound():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
