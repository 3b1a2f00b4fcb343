"""One address for many workers: `arcforge route --workers URL URL`.

    GET    /health                 200 while a worker is healthy
    GET    /metrics                for Prometheus
    GET    /workers                the workers, their health and load
    POST   /workers {"url": ..}    one more; DELETE takes one out
    every path of CONTROL          told to all workers (`router_control`)
    everything else                sent on to one worker (`router_forward`)

A session stays on one worker, which holds the prefix of its turns: consistent hashing of the session's name, with light
rebalancing (GLM-5 report, section 4.1.2, DP-aware routing).
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from arcforge.core.errors import UserError
from arcforge.launch.limits import raise_open_files
from arcforge.serve.http import ClientLeft, as_problem, problem
from arcforge.serve.listener import Server, bind, server
from arcforge.serve.router_control import CONTROL, METHODS, FanOut
from arcforge.serve.router_forward import Forward
from arcforge.serve.router_health import Heartbeats
from arcforge.serve.router_http import Upstream, read_incoming, worker_url
from arcforge.serve.router_metrics import registry
from arcforge.serve.router_workers import Worker, WorkerPool

SMALL_BODY = 1 << 16  # bytes, of a request for the router itself


@dataclass(frozen=True)
class RouterOptions:
    """timeout: seconds for one request, retries included; longer than a worker's own 600, so that its word is heard.
    beat: seconds between heartbeats; beat_timeout: for one; beats_missed: in a row, until a worker is taken out."""

    timeout: float = 660.0
    beat: float = 1.0
    beat_timeout: float = 5.0
    beats_missed: int = 3
    max_body_bytes: int = 64 << 20


def build_router(
    workers: Sequence[str], options: RouterOptions | None = None, prefill: Sequence[str] = ()
) -> Starlette:
    """The application. prefill: workers that compute prompts for the others (`handoff_api`). UserError for an address that is
    none, for one named twice, and for none at all."""
    options = options or RouterOptions()
    if not options.timeout > 0:
        raise UserError(f"timeout {options.timeout:g}: more than 0 seconds are needed")
    pool, upstream = _pool_of(workers, prefill), Upstream()
    heartbeats = Heartbeats(
        pool, upstream, options.beat, options.beat_timeout, options.beats_missed, call_timeout=options.timeout
    )
    own = RouterApi(pool, heartbeats, options.timeout)
    fan_out = FanOut(pool, upstream, options.timeout, options.max_body_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        upstream.open()
        await asyncio.gather(*map(heartbeats.start, pool))
        yield
        await heartbeats.stop_all()
        await upstream.close()

    routes = [
        Route("/health", own.health),
        Route("/metrics", own.metrics),
        Route("/workers", own.list_workers),
        Route("/workers", own.add_worker, methods=["POST"]),
        Route("/workers", own.remove_worker, methods=["DELETE"]),
        *(Route(path + slash, fan_out.answer, methods=METHODS) for path in CONTROL for slash in ("", "/")),
        Route("/{path:path}", Forward(pool, upstream, options.timeout, options.max_body_bytes)),
    ]
    handlers: dict[Any, Any] = dict.fromkeys((UserError, ClientLeft, TimeoutError), _failed)
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


def _pool_of(workers: Sequence[str], prefill: Sequence[str]) -> WorkerPool:
    pool = WorkerPool()
    for url in map(worker_url, (*workers, *prefill)):
        if pool.get(url):
            raise UserError(f"worker {url} is named twice")
        pool.add(url, prefill=len(list(pool)) >= len(workers))
    if not workers:
        raise UserError("no workers: name at least one, as in --workers http://127.0.0.1:8001")
    return pool


class RouterApi:
    """The router's own paths."""

    def __init__(self, pool: WorkerPool, heartbeats: Heartbeats, timeout: float) -> None:
        self._pool, self._heartbeats, self._timeout = pool, heartbeats, timeout
        self._registry = registry(pool)

    async def health(self, request: Request) -> Response:
        ready = [self._pool.answers(worker) for worker in self._pool if not worker.prefill]
        counts = {"healthy": sum(ready), "workers": len(ready)}
        if not any(ready):
            return problem("no worker is healthy", "no_worker", 503, **counts)
        return JSONResponse({"status": "ok", **counts})

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def list_workers(self, request: Request) -> Response:
        return JSONResponse({"workers": [self._described(worker) for worker in self._pool]})

    async def add_worker(self, request: Request) -> Response:
        url = await self._named(request)
        worker = self._pool.get(url)
        if worker is None:
            worker = self._pool.add(url)
            await self._heartbeats.start(worker)
        return JSONResponse(self._described(worker))

    async def remove_worker(self, request: Request) -> Response:
        url = await self._named(request)
        worker = self._pool.get(url)
        if worker is None:
            return problem(f"{url} is no worker of this router", "not_found", 404)
        self._pool.remove(url)
        await self._heartbeats.stop(url)
        return JSONResponse({"removed": url, "in_flight": worker.in_flight})

    async def _named(self, request: Request) -> str:
        async with asyncio.timeout(self._timeout):
            incoming = await read_incoming(request.scope, request.receive, SMALL_BODY)
        try:
            return worker_url(json.loads(incoming.body)["url"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError('a JSON object {"url": "http://.."} is needed') from None

    def _described(self, worker: Worker) -> dict[str, Any]:
        missing = [kept.request.target for _, kept in self._pool.missing(worker)]
        refusal = f"has not done {', '.join(missing)}: {worker.refusal}" if missing else ""
        return {
            "url": worker.url,
            "healthy": self._pool.ready(worker),
            "prefill": worker.prefill,
            "in_flight": worker.in_flight,
            "requests": worker.requests,
            "failures": worker.failures,
            "problem": worker.problem or refusal,
        }


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, TimeoutError):
        return problem("the request did not arrive in time", "timeout", 504)
    return problem(*as_problem(error))


def route(
    workers: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 8000,
    grace: int = 30,
    options: RouterOptions | None = None,
    prefill: Sequence[str] = (),
) -> None:
    """Route until SIGTERM or SIGINT; then `grace` seconds for open requests. UserError for a bad worker, port or host."""
    app = build_router(workers, options, prefill)
    raise_open_files()
    sock = bind(host, port)
    url = f"http://{host}:{sock.getsockname()[1]}"
    running = server(app, None, lambda: print(f"ready {url}", flush=True), grace)
    asyncio.run(_until_signalled(running, sock))


async def _until_signalled(running: Server, sock: socket.socket) -> None:
    def stop() -> None:
        running.force_exit = running.should_exit  # a second signal waits for nobody
        running.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await running.serve([sock])
