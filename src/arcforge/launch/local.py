"""Components as child processes of this one: a log and a heartbeat each, death noticed at once, stopped in order.

    with LocalLauncher(run / "logs") as launcher:
        launcher.start("engine", [sys.executable, "-m", "arcforge.serve.main", "--port", str(port)])
        launcher.wait_ready("engine", probe, timeout=60)
        launcher.start("trainer", [...])
        launcher.wait("trainer", timeout=3600)      # raises ComponentDied as soon as any component is dead

When this process is killed with SIGKILL the kernel kills the components too (Linux). That bond is to the thread that
started them: start components from the main thread.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

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
    """The process ended by itself. exit_code: as subprocess tells it, -N for signal N."""

    def __init__(self, name: str, exit_code: int, log: Path) -> None:
        self.exit_code = exit_code
        super().__init__(name, f"ended with code {exit_code}", log)


class ComponentHung(ComponentError):
    """The process lives, but its heartbeat stopped or it did not become ready or finish in time."""


@dataclass(frozen=True)
class Component:
    """A started component. heartbeat: the file it touches, which may be silent for `heartbeat_timeout` seconds."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    heartbeat: Path | None = None
    heartbeat_timeout: float = 60.0
    started: float = field(default_factory=time.monotonic)

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()


class LocalLauncher:
    """Starts, watches and stops components. Logs go to `folder/<name>.log`, appended over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._components: dict[str, Component] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        heartbeat: Path | None = None,
        heartbeat_timeout: float = 60.0,
    ) -> Component:
        """Start `argv` in its own process group. A name can be used again once its component has ended."""
        if name in self._components and self._components[name].exit_code is None:
            raise ValueError(f"component {name!r} is running")
        log = self.folder / f"{name}.log"
        wrapped = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *argv]
        with open(log, "ab") as file:
            process = subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT, **(env or {})},
                start_new_session=True,
            )
        self._components[name] = Component(name, process, log, heartbeat, heartbeat_timeout)
        return self._components[name]

    def check(self) -> None:
        """Raise ComponentDied or ComponentHung for the first component that is not well. An exit with 0 is well."""
        for component in self._components.values():
            code = component.exit_code
            if code is not None and code != 0:
                raise ComponentDied(component.name, code, component.log)
            if code is None and _silent(component):
                raise ComponentHung(component.name, f"is silent for {component.heartbeat_timeout:g} s", component.log)

    def wait(self, name: str, timeout: float) -> None:
        """Until component `name` ends with 0. Raises as `check` does, and ComponentHung after `timeout` seconds."""
        component = self._components[name]
        self._until(lambda: component.exit_code == 0, component, timeout, "did not finish")

    def wait_ready(self, name: str, probe: Callable[[], bool], timeout: float) -> None:
        """Until `probe()` is true. Raises ComponentDied (also for an early exit with 0) or ComponentHung."""
        component = self._components[name]

        def ready() -> bool:
            if component.exit_code is not None:
                raise ComponentDied(name, component.exit_code, component.log)
            return probe()

        self._until(ready, component, timeout, "was not ready")

    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM, last started first; `grace` seconds for all together; then SIGKILL to the process groups."""
        components = list(reversed(self._components.values()))
        for component in components:
            if component.exit_code is None:
                _signal_group(component, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and any(c.exit_code is None for c in components):
            time.sleep(POLL_SECONDS)
        for component in components:
            _signal_group(component, signal.SIGKILL)  # also what a component left behind in its group
            component.process.wait(timeout=10)
        self._components.clear()

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(INTERRUPT_GRACE if kind is not None and issubclass(kind, KeyboardInterrupt) else GRACE)

    def _until(self, done: Callable[[], bool], component: Component, timeout: float, problem: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise ComponentHung(component.name, f"{problem} within {timeout:g} s", component.log)
            time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _silent(component: Component) -> bool:
    if component.heartbeat is None:
        return False
    silence = heartbeat.age(component.heartbeat)
    since_start = time.monotonic() - component.started
    # A file left by an earlier run is old without meaning anything until the component had its time to start.
    return min(since_start, since_start if silence is None else silence) > component.heartbeat_timeout


def _signal_group(component: Component, number: signal.Signals) -> None:
    try:
        os.killpg(component.process.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # macOS answers so for a group whose only member is a zombie
        pass


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, os.path.getsize(log) - 8192))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
