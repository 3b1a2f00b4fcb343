"""Worker processes, a router before them in a thread, and what the tests of the router do with both."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import toy_worker

from arcforge.serve.listener import bind, server
from arcforge.serve.router import RouterOptions, build_router

DIRECT = httpx.Client(trust_env=False, verify=False, timeout=10)  # to the workers, past the router
QUICK = RouterOptions(timeout=15, beat=0.1, beat_timeout=0.5, beats_missed=3)


class ToyWorker:
    """`toy_worker` as a process."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; see `ready`."""
        self.process = subprocess.Popen([sys.executable, toy_worker.__file__, str(self.port)])

    def ready(self) -> ToyWorker:
        end = time.monotonic() + 20
        while True:
            try:
                DIRECT.get(f"{self.url}/health")
                return self
            except httpx.TransportError:
                assert time.monotonic() < end, "the worker did not start"
                time.sleep(0.02)

    def set(self, **values: Any) -> None:
        DIRECT.post(f"{self.url}/set", json=values)

    @property
    def state(self) -> dict[str, Any]:
        return DIRECT.get(f"{self.url}/state").json()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@contextmanager
def routed(workers: Sequence[ToyWorker], options: RouterOptions = QUICK) -> Iterator[httpx.Client]:
    """The router in a thread, on a real socket."""
    ready = threading.Event()
    running = server(build_router([worker.url for worker in workers], options), None, ready.set)
    sock = bind("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([sock])), daemon=True)
    thread.start()
    assert ready.wait(10)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False) as router:
            yield router
    finally:
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def generate(router: httpx.Client, session: str = "", **body: Any) -> dict[str, Any]:
    response = router.post("/generate", json=body, headers={"X-Session-ID": session} if session else {})
    assert response.status_code == 200, response.text
    return response.json()


def listed(router: httpx.Client, worker: ToyWorker) -> dict[str, Any]:
    return next(each for each in router.get("/workers").json()["workers"] if each["url"] == worker.url)


def session_of(router: httpx.Client, worker: ToyWorker) -> str:
    """The name of a session whose requests go to `worker`."""
    return next(name for name in map(str, range(100)) if generate(router, name)["worker"] == worker.port)
