"""A real HTTP server on the loopback, answering what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[str, Any], Any]


def _listening_socket() -> socket.socket:
    """With its protocol named: asyncio turns Nagle's delay of 40 ms off only for sockets that say that they are TCP."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


class LoopbackServer:
    """handler(path, body) returns JSON, or (status, JSON or text, headers), or a number of seconds to stay silent."""

    def __init__(self) -> None:
        self.handler: Handler = lambda path, body: {}
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.ports: set[int] = set()
        self._socket = _listening_socket()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def start(self) -> None:
        self._thread.start()
        end = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < end, "the loopback server did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.requests.append((request.url.path, body, dict(request.headers)))
        assert request.client is not None
        self.ports.add(request.client.port)
        answer = self.handler(request.url.path, body)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = {}
        status, content, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        text = content if isinstance(content, str) else json.dumps(content)
        return Response(text, status_code=status, headers=headers)
