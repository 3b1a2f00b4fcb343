"""Components as child processes of this one: a log and a heartbeat each, death noticed at once, stopped in order.

    with LocalLauncher(run / "logs") as launcher:
        launcher.start("engine", [sys.executable, "-m", "arcforge.serve.main", "--port", str(port)])
        launcher.wait_ready("engine", probe, timeout=60)
        launcher.start("trainer", [...])
        launcher.wait("trainer", timeout=3600)      # raises ComponentDied as soon as any component is dead

When this process is killed with SIGKILL the kernel kills the components too (Linux). That bond is to the thread that
started them: start components from the main thread.

`Launcher` is what this launcher and the one on a Ray cluster (`launch.ray`) share; a stage is written against it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from arcforge.launch import child, heartbeat

POLL_SECONDS = 0.02
TAIL_LINES = 20
GRACE = 5.0
INTERRUPT_GRACE = 2.5  # a person waits

# One thread each: with several processes per core, spinning OpenMP threads cost 20 times the work they do.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


class ComponentError(RuntimeError):
    """A component is not doing its work. `name`, `problem`, and `tail`: the last lines of its log."""

    def __init__(self, name: str, problem: str, log: Path) -> None:
        self.name, self.problem, self.log, self.tail = name, problem, log, _tail(log)
        super().__init__(f"{name} {problem}; its log {log} ends:\n{self.tail or '(empty)'}")

    @property
    def line(self) -> str:
        """What happened in one line."""
        last = self.tail.splitlines()[-1] if self.tail else "nothing in its log"
        return f"{self.name} {self.problem}: {last} ({self.log})"


class ComponentDied(ComponentError):
    """The process ended by itself, or its node did. exit_code: as subprocess tells it, -N for signal N; None with a node."""

    def __init__(self, name: str, exit_code: int | None, log: Path, problem: str = "") -> None:
        self.exit_code = exit_code
        super().__init__(name, problem or f"ended with code {exit_code}", log)


class ComponentHung(ComponentError):
    """The process lives, but its heartbeat stopped or it did not become ready or finish in time."""


class Started(Protocol):
    """What every launcher tells of a component it started. exit_code: None while it runs."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def exit_code(self) -> int | None: ...


class Launcher(ABC):
    """Starts, watches and stops components. Logs go to `folder/<name>.log`, appended over restarts."""

    host: str
    """Where a component listens so that the others reach it at its `address`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        heartbeat: Path | None = None,
        heartbeat_timeout: float = 60.0,
        port_file: Path | None = None,
    ) -> Started:
        """Start `argv` in its own process group. A name can be used again once its component has ended.

        heartbeat: a file that the component touches (`launch.heartbeat`). port_file: one that it writes its port to; what
        an earlier component left there is removed first.
        """

    @abstractmethod
    def component(self, name: str) -> Started: ...

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The components started and not stopped, first started first."""

    @abstractmethod
    def problem(self, name: str) -> ComponentError | None:
        """ComponentDied or ComponentHung when the component is not well, else None. An exit with 0 is well."""

    @abstractmethod
    def address(self, name: str) -> str | None:
        """`HOST:PORT` at which the other components reach this one; None until its port file is written."""

    @abstractmethod
    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM, last started first; `grace` seconds for all together; then SIGKILL to the process groups."""

    def check(self) -> None:
        """Raise the `problem` of the first component that has one."""
        for name in self.names:
            problem = self.problem(name)
            if problem is not None:
                raise problem

    def wait(self, name: str, timeout: float) -> None:
        """Until component `name` ends with 0. Raises as `check` does, and ComponentHung after `timeout` seconds."""
        component = self.component(name)
        self._until(lambda: component.exit_code == 0, component, timeout, "did not finish")

    def wait_ready(self, name: str, probe: Callable[[], bool], timeout: float) -> None:
        """Until `probe()` is true. Raises ComponentDied (also for an early exit with 0) or ComponentHung."""
        component = self.component(name)

        def ready() -> bool:
            if component.exit_code is not None:
                raise ComponentDied(name, component.exit_code, component.log)
            return probe()

        self._until(ready, component, timeout, "was not ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(INTERRUPT_GRACE if kind is not None and issubclass(kind, KeyboardInterrupt) else GRACE)

    def _until(self, done: Callable[[], bool], component: Started, timeout: float, problem: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise ComponentHung(component.name, f"{problem} within {timeout:g} s", component.log)
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class Component:
    """A started component. heartbeat: the file it touches, which may be silent for `heartbeat_timeout` seconds."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    heartbeat: Path | None = None
    heartbeat_timeout: float = 60.0
    port_file: Path | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()


class LocalLauncher(Launcher):
    """Components are processes on this machine, which reach each other over loopback."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._components: dict[str, Component] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        heartbeat: Path | None = None,
        heartbeat_timeout: float = 60.0,
        port_file: Path | None = None,
    ) -> Component:
        if name in self._components and self._components[name].exit_code is None:
            raise ValueError(f"component {name!r} is running")
        log = self.folder / f"{name}.log"
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        with open(log, "ab") as file:
            process = spawn(argv, env or {}, file)
        self._components[name] = Component(name, process, log, heartbeat, heartbeat_timeout, port_file)
        return self._components[name]

    def component(self, name: str) -> Component:
        return self._components[name]

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._components)

    def problem(self, name: str) -> ComponentError | None:
        component = self._components[name]
        code = component.exit_code
        if code is not None:
            return ComponentDied(name, code, component.log) if code != 0 else None
        if silent(component.heartbeat, component.started, component.heartbeat_timeout):
            return ComponentHung(name, f"is silent for {component.heartbeat_timeout:g} s", component.log)
        return None

    def address(self, name: str) -> str | None:
        port = read_port(self._components[name].port_file)
        return None if port is None else f"{self.host}:{port}"

    def kill(self, name: str) -> None:
        """SIGKILL to one component's process group; the name can be used again."""
        component = self._components.pop(name)
        signal_group(component.process, signal.SIGKILL)
        component.process.wait(timeout=10)

    def stop(self, grace: float = GRACE) -> None:
        components = list(reversed(self._components.values()))
        for component in components:
            if component.exit_code is None:
                signal_group(component.process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(c.exit_code is None for c in components):
            time.sleep(POLL_SECONDS)
        for component in components:
            signal_group(component.process, signal.SIGKILL)  # also what a component left behind in its group
            component.process.wait(timeout=10)
        self._components.clear()


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def spawn(argv: Sequence[str], env: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """`argv` in its own process group, writing to `output`; it dies with the thread that called this (Linux)."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *argv],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **ENVIRONMENT, **env},
        start_new_session=True,
    )


def silent(path: Path | None, started: float, timeout: float) -> bool:
    """Whether the heartbeat file of a component started at `started` (monotonic) is older than `timeout` seconds."""
    if path is None:
        return False
    silence = heartbeat.age(path)
    since_start = time.monotonic() - started
    # A file left by an earlier run is old without meaning anything until the component had its time to start.
    return min(since_start, since_start if silence is None else silence) > timeout


def read_port(path: Path | None) -> int | None:
    """The port in a port file, or None before it is written."""
    try:
        return None if path is None else int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # macOS answers so for a group whose only member is a zombie
        pass


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
