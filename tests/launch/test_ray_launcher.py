"""The launcher on a Ray cluster of two nodes (two addresses of loopback): real processes, deaths of all kinds, nothing hangs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from test_local_launcher import PYTHON, alive, eventually

from arcforge.core.config import build
from arcforge.core.errors import UserError
from arcforge.launch import ray as ray_launcher
from arcforge.launch.heartbeat import age
from arcforge.launch.local import ComponentDied, ComponentHung, Launcher
from arcforge.launch.ray import RayConfig, RayLauncher, import_ray

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes are addresses of Linux's loopback")

OBJECTS = 80 * 2**20
SECOND, THIRD = "127.0.0.2", "127.0.0.3"
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(120)"


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node, with room for one component each; this process is a driver of it."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    # Ray writes the cluster's address to its default folder, which it makes only for a cluster that lives there.
    os.makedirs(os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray"), exist_ok=True)
    started = Cluster()
    started.add_node(
        num_cpus=1,
        object_store_memory=OBJECTS,
        temp_dir=folder,
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        _system_config={"health_check_period_ms": 300},  # Ray notices a node's death in 1.5 s instead of 15
    )
    started.add_node(num_cpus=1, object_store_memory=OBJECTS, node_ip_address=SECOND, resources={"second": 1})
    ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
    yield started
    ray.shutdown()
    started.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def launcher(cluster, tmp_path):
    with RayLauncher(tmp_path / "logs") as running:
        yield running


def configured(**values):
    return build(RayConfig, values, "ray")


def pid_of(launcher, name):
    """The first line of its log, which arrives through the actor."""
    log = launcher.component(name).log
    launcher.wait_ready(name, lambda: log.read_text().endswith("\n"), timeout=30)
    return int(log.read_text().split()[0])


def test_components_spread_over_nodes_and_are_found_at_their_addresses(launcher, tmp_path):
    serve = (
        "import os, pathlib, socket, sys\nsock = socket.create_server((sys.argv[2], 0))\n"
        "pathlib.Path(sys.argv[1]).write_text(str(sock.getsockname()[1]))\n"
        "peer = sock.accept()[0]\npeer.sendall(os.environ['NAME'].encode())\nprint(os.environ['OMP_NUM_THREADS'])\n"
    )
    names = ["engine-0", "engine-1"]
    for name in names:
        port_file = tmp_path / f"{name}.port"
        port_file.write_text("1")  # of an earlier run
        argv = [*PYTHON, serve, str(port_file), launcher.host]
        launcher.start(name, argv, env={"NAME": name}, port_file=port_file)
    for name in names:
        launcher.wait_ready(name, lambda: launcher.address(name) is not None, timeout=30)  # noqa: B023
    addresses = [launcher.address(name).rsplit(":", 1) for name in names]
    assert len({host for host, _ in addresses}) == 2 and SECOND in {host for host, _ in addresses}
    for name, (host, port) in zip(names, addresses, strict=True):
        with socket.create_connection((host, int(port)), timeout=10) as peer:
            assert peer.recv(100).decode() == name
        launcher.wait(name, timeout=10)
        assert launcher.component(name).log.read_text() == "1\n"
    assert isinstance(launcher, Launcher)


def test_death_is_noticed_while_waiting_for_another_with_the_end_of_a_long_log(launcher):
    launcher.start("trainer", [*PYTHON, SLEEP])
    pid_of(launcher, "trainer")
    lines = 20000
    boom = f"for n in range({lines}): print('line', n)\nprint('boom')\nraise SystemExit(1)"
    component = launcher.start("engine", [*PYTHON, boom])
    with pytest.raises(ComponentDied, match="engine ended with code 1") as caught:
        launcher.wait("trainer", timeout=60)
    assert caught.value.exit_code == 1 and "boom" in caught.value.line
    assert component.log.read_text() == "".join(f"line {n}\n" for n in range(lines)) + "boom\n"
    launcher.start("engine", ["/no/such/program"])  # the node has room again
    with pytest.raises(ComponentDied, match="cannot start /no/such/program"):
        launcher.wait("trainer", timeout=60)


def test_silence_is_noticed_and_beating_is_not(launcher, tmp_path):
    beat = tmp_path / "engine.heartbeat"
    loop = f"import os, time, pathlib\nprint(os.getpid(), flush=True)\nwhile True:\n    pathlib.Path({str(beat)!r}).touch()\n"
    launcher.start("engine", [*PYTHON, loop + "    time.sleep(0.05)"], heartbeat=beat, heartbeat_timeout=1.5)
    pid = pid_of(launcher, "engine")
    until = time.monotonic() + 1.8
    while time.monotonic() < until:
        launcher.check()
        time.sleep(0.05)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ComponentHung, match=r"engine is silent for 1.5 s"):
        launcher.wait("engine", timeout=30)
    assert age(beat) > 1
    launcher.stop(grace=0.1)
    assert eventually(lambda: not alive(pid))


def test_stop_is_orderly_then_thorough_and_a_name_is_used_once_at_a_time(launcher):
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('bye'), sys.exit(0)))\n"
    log = launcher.start("polite", [*PYTHON, polite + "print(0, flush=True)\ntime.sleep(60)"]).log
    stubborn = (
        "import signal, subprocess, sys, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\ntime.sleep(60)"
    )
    component = launcher.start("stubborn", [*PYTHON, stubborn])
    pid_of(launcher, "polite")
    grandchild = pid_of(launcher, "stubborn")
    with pytest.raises(ValueError, match="is running"):
        launcher.start("stubborn", [*PYTHON, SLEEP])
    started = time.monotonic()
    launcher.stop(grace=1.0)
    assert time.monotonic() - started < 10
    assert log.read_text() == "0\nbye\n" and component.exit_code == -signal.SIGKILL
    assert eventually(lambda: not alive(grandchild))


def test_a_component_that_fits_no_node_is_told_with_what_there_is(cluster, tmp_path):
    config = configured(resources={"engine": {"cpus": 1, "gpus": 8, "custom": {"h200": 1}}})
    with RayLauncher(tmp_path, config, place_seconds=1.0) as launcher:
        launcher.start("engine-0", [*PYTHON, SLEEP])
        with pytest.raises(
            ComponentHung, match=r"is on no node after 1 s: it asks for 1 CPU, 8 GPU, 1 h200 on one node"
        ):
            launcher.wait("engine-0", timeout=30)
    with pytest.raises(UserError, match="CPU is not a custom resource"):
        RayLauncher(tmp_path, configured(resources={"a": {"custom": {"CPU": 1}}})).start("a", [*PYTHON, SLEEP])


def test_components_of_a_node_that_is_killed_are_lost_and_those_of_others_are_not(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=OBJECTS, node_ip_address=THIRD, resources={"third": 1})
    config = configured(resources={"engine": {"custom": {"third": 1}}, "trainer": {"custom": {"second": 1}}})
    with RayLauncher(tmp_path, config) as launcher:
        launcher.start("engine-0", [*PYTHON, SLEEP])
        launcher.start("trainer", [*PYTHON, SLEEP])
        engine, trainer = pid_of(launcher, "engine-0"), pid_of(launcher, "trainer")
        cluster.remove_node(node, allow_graceful=False)
        started = time.monotonic()
        with pytest.raises(ComponentDied, match=rf"engine-0 was lost on node {THIRD} \(.+node has died") as caught:
            launcher.wait("trainer", timeout=60)
        assert time.monotonic() - started < 40 and caught.value.exit_code is None
        assert launcher.problem("trainer") is None and alive(trainer)
        started = time.monotonic()
        launcher.stop(grace=3.0)
        assert time.monotonic() - started < 10
        assert eventually(lambda: not alive(engine) and not alive(trainer))


def actor_of(pid):
    """The parent of a component's process."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_a_node_that_does_not_answer_is_given_up_and_stopping_does_not_wait_for_it(launcher, monkeypatch):
    monkeypatch.setattr(ray_launcher, "ANSWER_SECONDS", 1.5)
    launcher.start("engine", [*PYTHON, SLEEP])
    pid = pid_of(launcher, "engine")
    actor = actor_of(pid)
    os.kill(actor, signal.SIGSTOP)
    try:
        with pytest.raises(ComponentHung, match=r"engine cannot be seen: node .+ is silent for 1.5 s"):
            launcher.wait("engine", timeout=30)
        started = time.monotonic()
        monkeypatch.setattr(ray_launcher, "KILL_SECONDS", 0.5)
        launcher.stop(grace=1.0)
        assert time.monotonic() - started < 8
    finally:
        os.kill(actor, signal.SIGCONT)
    assert eventually(lambda: not alive(pid))


def test_an_actor_that_is_killed_takes_its_component_along(launcher):
    launcher.start("engine", [*PYTHON, SLEEP])
    pid = pid_of(launcher, "engine")
    os.kill(actor_of(pid), signal.SIGKILL)
    with pytest.raises(ComponentDied, match="engine was lost on node"):
        launcher.wait("engine", timeout=30)
    assert eventually(lambda: not alive(pid))


def test_components_die_with_a_driver_that_is_killed(cluster, tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom arcforge.launch.ray import RayConfig, RayLauncher\n"
        "running = RayLauncher(Path(sys.argv[1]), RayConfig(address=sys.argv[2]))\n"
        f"for name in 'ab':\n    running.start(name, [*{PYTHON!r}, {SLEEP!r}])\ntime.sleep(120)"
    )
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path), cluster.address]) as driver:
        try:
            assert eventually(lambda: all(log.exists() and log.read_text().endswith("\n") for log in logs), 60)
            pids = [int(log.read_text()) for log in logs]
            assert all(alive(pid) for pid in pids)
        finally:
            driver.kill()
    assert eventually(lambda: not any(alive(pid) for pid in pids), 20)


def test_without_a_cluster_or_ray_there_is_one_clear_line(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom arcforge.core.errors import UserError\n"
        "from arcforge.launch.ray import RayConfig, RayLauncher\n"
        "assert 'ray' not in sys.modules\nif sys.argv[1] == 'missing':\n    sys.modules['ray'] = None\n"
        "try:\n    RayLauncher(Path('.'), RayConfig(address='127.0.0.1:1'))\nexcept UserError as error:\n    print(error)"
    )
    for case, line in {
        "missing": "the Ray launcher needs Ray: pip install 'arcforge[ray]'",
        "dead": "no Ray cluster at 127.0.0.1:1 ([Errno 111] Connection refused): start one with `ray start --head`",
    }.items():
        command = [sys.executable, "-c", script, case]
        told = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=30)
        assert told.stdout == line + "\n"
    with pytest.raises(UserError, match="address"):
        configured(address="ray://10.0.0.1:10001")
