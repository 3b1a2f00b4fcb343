"""Components on a Ray cluster: the same launcher, one actor per component, which starts the component's process on its node.

    config = RayConfig(address="10.0.0.1:6379", resources={"engine": Resources(gpus=1)})
    with RayLauncher(run / "logs", config) as launcher:
        launcher.start("engine-0", [...], port_file=run / "engine-0.port")
        launcher.wait_ready("engine-0", lambda: launcher.address("engine-0") is not None, timeout=120)

Logs, ends, heartbeats and ports come through the actors, so the launcher needs no shared file system; what components give to
each other through files (weights, rollouts) does. Every node has arcforge and the program in `argv` at the same path. A
component starts in the folder of its node's Ray worker with that node's environment: paths in `argv` are absolute.

When this process dies, Ray ends its actors, and the kernel ends their processes (Linux). This process itself takes part in no
placement: what the trainer in it uses is kept from Ray by what its node is started with. A cluster without Ray's statistics,
metrics and dashboard: `RAY_enable_metrics_collection=0 ray start --head --disable-usage-stats --include-dashboard=false`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import Field

from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.launch.local import GRACE, POLL_SECONDS, ComponentDied, ComponentError, ComponentHung, Launcher
from arcforge.launch.node import NodeProcess, Order, Report

REPORT_SECONDS = 0.5
"""Longest time between two reports of a component; its end is told at once."""
ANSWER_SECONDS = 30.0
"""Without a report for so long a component is given up. Ray notices a killed node in 15 s, one that is cut off much later."""
CONNECT_SECONDS = 5.0
LOOK_SECONDS = 0.2
PLACE_SECONDS = 60.0
"""Longest time until a component runs on a node."""
KILL_SECONDS = 5.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
RESERVED = {"CPU", "GPU", "memory", "object_store_memory"}


class Resources(Config):
    """What a component takes of its node. custom: amounts by the names that nodes were started with (`ray start --resources`),
    which also choose the node."""

    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    custom: dict[str, float] = {}


class RayConfig(Config):
    """Where the cluster is and what each component takes of it."""

    address: str = Field(default="", pattern=r"^(|auto|[^/]+:\d+)$")
    """HOST:PORT of the head; "auto" is RAY_ADDRESS or the cluster that this machine belongs to; a recipe without one uses no
    cluster."""
    resources: dict[str, Resources] = {}
    """By component, or by kind: `engine` is for engine-0, engine-1 and so on. One CPU for what is not named."""

    def of(self, name: str) -> Resources:
        kind = re.sub(r"-\d+$", "", name)
        return self.resources.get(name) or self.resources.get(kind) or Resources.model_validate({})


@dataclass
class RayComponent:
    """A component as its reports tell it. The launcher's watching thread writes, the others read.

    quiet: seconds without an answer since the last report, as far as the watcher was looking. lost: why there are no more
    reports, "" while there are.
    """

    name: str
    log: Path
    actor: Any
    heartbeat_timeout: float
    started: float = field(default_factory=time.monotonic)
    report: Report | None = None
    pending: Any = None
    offset: int = 0
    quiet: float = 0.0
    lost: str = ""

    @property
    def exit_code(self) -> int | None:
        return None if self.report is None else self.report.exit_code

    @property
    def running(self) -> bool:
        return self.exit_code is None and not self.lost

    @property
    def node(self) -> str:
        return "before it had a node" if self.report is None else f"on node {self.report.host}"


class RayLauncher(Launcher):
    """Components are processes on the nodes of a Ray cluster. UserError when Ray is missing or there is no cluster.

    A component that ended gives its resources back at once, and what it left in its process group ends with it.
    """

    host = "0.0.0.0"

    def __init__(self, folder: Path, config: RayConfig | None = None, place_seconds: float = PLACE_SECONDS) -> None:
        super().__init__(folder)
        self._place_seconds = place_seconds
        self.config = config or RayConfig.model_validate({})
        self._ray, self._connected_here = connect(self.config.address)
        self._components: dict[str, RayComponent] = {}
        self._watcher: threading.Thread | None = None
        self._stopped = threading.Event()
        self._failure: Exception | None = None

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        heartbeat: Path | None = None,
        heartbeat_timeout: float = 60.0,
        port_file: Path | None = None,
    ) -> RayComponent:
        """Returns before the component is placed. `check` and the waits tell when it cannot be."""
        if name in self._components and self._components[name].running:
            raise ValueError(f"component {name!r} is running")
        log = self.folder / f"{name}.log"
        log.touch()
        order = Order(
            argv=tuple(argv),
            env=dict(env or {}),
            heartbeat=None if heartbeat is None else heartbeat.absolute(),
            heartbeat_timeout=heartbeat_timeout,
            port_file=None if port_file is None else port_file.absolute(),
        )
        component = RayComponent(name, log, self._actor(name, order), heartbeat_timeout)
        component.pending = component.actor.report.remote(0, 0.0)
        self._components[name] = component
        if self._watcher is None:
            self._stopped.clear()
            self._watcher = threading.Thread(target=self._watch, name="ray-launcher", daemon=True)
            self._watcher.start()
        return component

    def _actor(self, name: str, order: Order) -> Any:
        wanted = self.config.of(name)
        reserved = RESERVED & wanted.custom.keys()
        if reserved:
            raise UserError(f"resources of {name}: {min(reserved)} is not a custom resource; use cpus and gpus")
        options = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "resources": wanted.custom}
        # A component is started again by who knows what it did, never by Ray.
        return (
            self._ray.remote(NodeProcess)
            .options(**options, scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0)
            .remote(order)
        )

    def component(self, name: str) -> RayComponent:
        return self._components[name]

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._components)

    def problem(self, name: str) -> ComponentError | None:
        """As for every launcher. Also ComponentDied (exit_code None) when the node or the actor is gone, and ComponentHung when
        no node has room for it, or its node does not answer."""
        if self._failure is not None:
            raise self._failure
        component = self._components[name]
        code, report, log = component.exit_code, component.report, component.log
        if code is not None:
            return ComponentDied(name, code, log) if code != 0 else None
        if component.lost:
            return ComponentDied(name, None, log, f"was lost {component.node} ({component.lost})")
        if report is None:
            late = time.monotonic() - component.started > self._place_seconds
            return ComponentHung(name, self._not_placed(name), log) if late else None
        if component.quiet > ANSWER_SECONDS:
            return ComponentHung(name, f"cannot be seen: node {report.host} is silent for {ANSWER_SECONDS:g} s", log)
        if report.silent:
            return ComponentHung(name, f"is silent for {component.heartbeat_timeout:g} s", log)
        return None

    def address(self, name: str) -> str | None:
        report = self._components[name].report
        if report is None or report.port is None:
            return None
        return f"[{report.host}]:{report.port}" if ":" in report.host else f"{report.host}:{report.port}"

    def stop(self, grace: float = GRACE) -> None:
        components = list(reversed(self._components.values()))
        deadline = time.monotonic() + grace
        for component in components:
            if component.running:
                self._signal([component], signal.SIGTERM, min(1.0, deadline - time.monotonic()))
        while time.monotonic() < deadline and any(c.running and c.report is not None for c in components):
            time.sleep(POLL_SECONDS)
        running = [c for c in components if c.running and c.report is not None]
        self._signal(running, signal.SIGKILL, KILL_SECONDS)
        deadline = time.monotonic() + LOOK_SECONDS + REPORT_SECONDS
        while time.monotonic() < deadline and any(c.running for c in running):
            time.sleep(POLL_SECONDS)  # for the ends of their logs
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join(timeout=10)
            self._watcher = None
        for component in components:
            self._ray.kill(component.actor)
        self._components.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and leave the cluster if this launcher joined it."""
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self._connected_here:
                self._ray.shutdown()

    def _signal(self, components: Sequence[RayComponent], number: signal.Signals, timeout: float) -> None:
        """Send and wait until it is done on the nodes that answer within `timeout` seconds."""
        sent = [c.actor.signal.remote(int(number)) for c in components]
        if sent:
            self._ray.wait(sent, num_returns=len(sent), timeout=max(0.0, timeout))

    def _watch(self) -> None:
        """Take reports and ask for the next ones until stopped. What goes wrong here is raised by `check`."""
        try:
            last = time.monotonic()
            while not self._stopped.is_set():
                waiting = {c.pending: c for c in list(self._components.values()) if c.pending is not None}
                if not waiting:
                    self._stopped.wait(POLL_SECONDS)
                    continue
                ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=LOOK_SECONDS)
                now = time.monotonic()
                for component in waiting.values():  # the cap: this process itself may have been suspended
                    component.quiet += min(now - last, 1.0) if component.report is not None else 0.0
                last = now
                for reference in ready:
                    self._receive(waiting[reference])
        except Exception as error:
            self._failure = error

    def _receive(self, component: RayComponent) -> None:
        errors = self._ray.exceptions
        try:
            report = self._ray.get(component.pending, timeout=CONNECT_SECONDS)
        except (errors.ActorUnavailableError, errors.GetTimeoutError):
            self._stopped.wait(POLL_SECONDS)  # the network may come back; `quiet` goes on counting
        except errors.RayError as error:
            component.lost, component.pending = _cause(error), None
            self._ray.kill(component.actor)  # it may have failed and live
            return
        else:
            if report.output:
                with open(component.log, "ab") as file:
                    file.write(report.output)
            component.offset += len(report.output)
            component.quiet, component.report = 0.0, report
            if report.exit_code is not None:
                component.pending = None
                self._ray.kill(component.actor)
                return
        component.pending = component.actor.report.remote(component.offset, REPORT_SECONDS)

    def _not_placed(self, name: str) -> str:
        wanted = self.config.of(name)
        asked = _amounts({"CPU": wanted.cpus, "GPU": wanted.gpus, **wanted.custom})
        free = {k: v for k, v in self._ray.available_resources().items() if not k.startswith("node:")}
        free = {k: v for k, v in free.items() if k not in {"memory", "object_store_memory"}}
        return (
            f"is on no node after {self._place_seconds:g} s: it asks for {asked} on one node, and the "
            f"cluster has {_amounts(free)} free"
        )


def connect(address: str) -> tuple[Any, bool]:
    """Join the cluster, unless this process is in one already; returns the ray module and whether this call joined.

    UserError without Ray or without a cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ray, False
    if address in ("", "auto"):
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address != "auto":
        _probe(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except ConnectionError:
        raise UserError(
            f"no Ray cluster at {address}: start one with `ray start --head`, or give its address"
        ) from None
    except (RuntimeError, ValueError) as error:  # RuntimeError: it runs other versions of Ray or Python
        raise UserError(f"cannot join the Ray cluster at {address}: {' '.join(str(error).split())}") from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray.init sets its own
    return ray, True


def import_ray() -> Any:
    """The ray module, told to collect no statistics in what it starts from here. UserError when it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError("the Ray launcher needs Ray: pip install 'arcforge[ray]'") from None
    return ray


def _probe(address: str) -> None:
    """UserError at once where nobody listens; ray.init would try for two minutes and then end this process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"no Ray cluster at {address} ({error}): start one with `ray start --head`") from None


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(resources.items()) if amount) or "nothing"


def _cause(error: Exception) -> str:
    """Ray's reason in one line; it stands below the lines about the actor, which begin with a tab."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines[-1:])[:300]
