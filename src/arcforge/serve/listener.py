"""uvicorn as this project runs it: no access log, no signals of its own, running requests answered before it ends."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

from arcforge.core.errors import EngineError, UserError
from arcforge.serve.loop import EngineLoop

GRACE = 2  # seconds for each step of stopping: the engine's answer, open requests, the engine's thread
KEEP_ALIVE = 120  # seconds; longer than clients' pools keep idle connections, so that the client closes first


class Server(uvicorn.Server):
    """uvicorn that leaves signals to its caller, says when it accepts requests, and ends running requests first."""

    def __init__(self, config: uvicorn.Config, engine: EngineLoop | None, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._engine, self._on_ready = engine, on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # another process that bound the same port began to listen first
            raise UserError(f"cannot listen: {error.strerror or error}; choose another port or 0") from None
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._engine is not None:
            with contextlib.suppress(EngineError):
                await self._engine.pause("abort", timeout=GRACE)
        await super().shutdown(sockets)


def server(
    app: Starlette, engine: EngineLoop | None, on_ready: Callable[[], None] = lambda: None, grace: int = GRACE
) -> Server:
    """A server for `app`; `await server.serve([bind(...)])` runs it until `should_exit` is set.

    engine: None for an application that has no engine of its own. grace: seconds for open requests when it stops.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=grace,
        http="httptools",  # a third less CPU per request than h11
        ws="none",
        proxy_headers=False,
        lifespan="on",
        date_header=False,
        server_header=False,
    )
    return Server(config, engine, on_ready)


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address but accepts nothing yet; port 0 picks a free one."""
    if not 0 <= port <= 65535:
        raise UserError(f"port {port}: it is a number from 0 to 65535; 0 picks a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, proto=socket.IPPROTO_TCP)[0]
        # asyncio turns Nagle's algorithm off only where the socket itself names TCP; with it an answer waits 40 ms.
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock
    except OSError as error:
        raise UserError(
            f"{host}:{port}: cannot listen there: {error.strerror or error}; choose another port or 0"
        ) from None
