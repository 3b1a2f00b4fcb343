"""What every route shares: JSON and event-stream answers, errors in one line, a limit for bodies, clients that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcforge.core.errors import EngineError, UserError
from arcforge.serve.engine import EnginePaused, EngineTimeout

T = TypeVar("T")


class TooLarge(UserError):
    """More than one request may ask for; answered 413."""


class ClientLeft(EngineError):
    """The client hung up before it had its answer; nobody reads what is answered."""


def encoded(content: Any) -> bytes:
    """JSON; text that is no valid Unicode (half a surrogate pair) is written with replacement characters."""
    try:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(content))


def answer(content: Any, status: int = 200) -> Response:
    return Response(encoded(content), status_code=status, media_type="application/json")


def error_fields(message: str, kind: str, status: int, **more: Any) -> dict[str, Any]:
    """The error that OpenAI's clients read, on one line."""
    return {"error": {"message": " ".join(message.split()), "type": kind, "code": status}, **more}


def problem(message: str, kind: str, status: int, **more: Any) -> Response:
    return answer(error_fields(message, kind, status, **more), status)


def event(content: Any, name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encoded(content) + b"\n\n"


def error_event(error: Exception) -> bytes:
    """The last event of a stream that broke off, as OpenAI's clients read it."""
    return event(error_fields(*as_problem(error)))


def event_stream(events: AsyncGenerator[bytes, None], broken: Callable[[Exception], bytes] = error_event) -> Response:
    """Events as they come. An error in the middle, when the status has long been sent, is told by the event `broken` makes."""

    async def told() -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(events):
                async for one in events:
                    yield one
        except (EngineError, UserError) as error:
            yield broken(error)

    return StreamingResponse(told(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def unless_left(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`; ClientLeft when the client hangs up first: then `work` is cancelled, nobody would read it."""
    task, watcher = asyncio.ensure_future(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft("the client hung up before it had its answer")
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class JsonBodies:
    """Bodies are JSON, whatever their content type says (curl's default says a form); those over `most` bytes are refused with
    413, and read no further."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, f"the request body is larger than {self._most} bytes")
            return message

        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        return await self._app(scope, limited, send)


def add_error_answers(app: FastAPI) -> None:
    """A bad request is answered 400 with one line (413 when too large), a stopping, stuck or failed engine, or an aborted chat, 503, an
    answer that took too long 504."""
    app.add_exception_handler(UserError, _engine_problem)
    app.add_exception_handler(EngineError, _engine_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_problem)


def as_problem(error: Exception) -> tuple[str, str, int]:
    """(message, type, status) of an error that a route may meet."""
    if isinstance(error, TooLarge):
        return str(error), "request_too_large", 413
    if isinstance(error, UserError):
        return str(error), "invalid_request_error", 400
    if isinstance(error, ClientLeft):
        return str(error), "client_left", 499
    if isinstance(error, EngineTimeout):
        return str(error), "timeout", 504
    return str(error), "paused" if isinstance(error, EnginePaused) else "engine_error", 503


async def _engine_problem(request: Request, error: Exception) -> Response:
    return problem(*as_problem(error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(f"the request body is not JSON: {first['ctx']['error']}", "invalid_request_error", 400)
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"] if part != "body")
    place = "".join(parts).removeprefix(".") or "the request body"
    return problem(f"{place}: {first['msg']}"[:500], "invalid_request_error", 400)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}.get(
        error.status_code, "invalid_request_error"
    )
    return problem(str(error.detail), kind, error.status_code)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(part) for part in value]
    return value
