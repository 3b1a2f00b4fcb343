"""A worker without a model, as a process of its own so that it can be killed: `python toy_worker.py PORT`.

It answers /generate and /stream as slowly as the request says, does what control calls say, and tells what happened to it
under /state. POST /set changes what it does next.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

FRESH = {"version": 0, "paused": "", "refuse": {}, "health": 200, "calls": [], "left": 0, "running": 0, "update_s": 0}
PORT = int(sys.argv[1]) if __name__ == "__main__" else 0
state: dict[str, Any] = dict(FRESH)


async def generate(request: Request) -> Response:
    """{"seconds"} to wait; {"die"}: kill the process instead of an answer."""
    body = await request.json()
    answer = {"worker": PORT, "version": state["version"]}
    if "/generate" in state["refuse"]:
        return JSONResponse({"refused by": PORT}, state["refuse"]["/generate"])
    state["running"] += 1
    left = asyncio.create_task(until_left(request))
    await asyncio.wait({left}, timeout=body.get("seconds", 0))
    state["running"] -= 1
    state["left"] += left.done()
    left.cancel()
    if body.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return JSONResponse(answer)


async def until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(request: Request) -> Response:
    """{"events"} with {"seconds"} between them; the process dies after {"die_after"} of them, in the middle of one if
    {"torn"}. {"type"} of content."""
    body = await request.json()

    async def events() -> AsyncIterator[bytes]:
        try:
            for i in range(body["events"]):
                if i == body.get("die_after"):
                    if body.get("torn"):
                        yield b"data: half"
                        await asyncio.sleep(0.1)
                    os.kill(os.getpid(), signal.SIGKILL)
                yield f'data: {{"worker": {PORT}, "i": {i}}}\n\n'.encode()
                await asyncio.sleep(body.get("seconds", 0))
            yield b"data: [DONE]\n\n"
        except asyncio.CancelledError:
            state["left"] += 1
            raise

    return StreamingResponse(events(), media_type=body.get("type", "text/event-stream"))


async def control(request: Request) -> Response:
    path, body = request.url.path, await request.body()
    values = json.loads(body or b"{}")
    state["calls"].append([path, request.url.query, values])
    if path in state["refuse"]:
        return JSONResponse({"error": {"message": f"{path} is refused"}}, state["refuse"][path])
    if path == "/update_weights":
        await asyncio.sleep(state["update_s"])
        state["version"] = values["version"]
        return JSONResponse({"version": values["version"], "by": PORT})
    state["paused"] = {"/pause": values.get("mode", ""), "/resume": ""}.get(path, state["paused"])
    return JSONResponse({"paused": state["paused"]})


async def health(request: Request) -> Response:
    return Response(status_code=state["health"])


async def setting(request: Request) -> Response:
    state.update(await request.json())
    return Response()


async def told(request: Request) -> Response:
    return JSONResponse(state)


async def echo(request: Request) -> Response:
    """Everything of the request, with a status and headers of its own."""
    said = {
        "method": request.method,
        "target": request.scope["raw_path"].decode() + "?" + request.url.query,
        "headers": [[name.decode(), value.decode()] for name, value in request.scope["headers"]],
        "body": (await request.body()).decode("latin-1"),
    }
    answer = JSONResponse(said, status_code=418)
    answer.raw_headers += [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-odd", b"yes")]
    return answer


ROUTES = [
    Route("/generate", generate, methods=["POST"]),
    Route("/stream", stream, methods=["POST"]),
    Route("/health", health),
    Route("/state", told),
    Route("/set", setting, methods=["POST"]),
    *(Route(path, control, methods=["POST"]) for path in ("/update_weights", "/pause", "/resume", "/abort")),
    Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
]

if __name__ == "__main__":
    uvicorn.run(Starlette(routes=ROUTES), port=PORT, log_level="error", http="httptools")
