"""Sending a request on to one worker, its answer back as it comes, and to another worker when the first one dies.

Every request here may safely be repeated, so one whose worker fails before a byte of the answer went to the client is
tried elsewhere. Afterwards the client is told: by an error event in an event stream, else by a closed connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, TypeVar

import aiohttp
from starlette.types import Receive, Scope, Send

from arcforge.core.errors import EngineError, UserError
from arcforge.serve.http import ClientLeft, TooLarge, encoded, error_fields, unless_left
from arcforge.serve.router_http import Incoming, Upstream, passed_on, read_incoming
from arcforge.serve.router_sessions import session_key
from arcforge.serve.router_workers import Worker, WorkerFailed, WorkerPool

T = TypeVar("T")
ATTEMPTS = 3  # a request that kills its worker may not kill them all
PAUSE = 0.05  # seconds before the second attempt; twice that before the third
LAST_WORD = 5.0  # seconds for a client to take the error that ends its request

HANDED_OFF = frozenset({"/generate", "/inference/v1/generate", "/v1/chat/completions", "/v1/messages"})

log = logging.getLogger(__name__)


class NoWorker(EngineError):
    """No worker is ready, or those that were tried failed."""


class Reply:
    """The answer to one client. Nothing is sent before the worker's first byte of body, or its end, is there."""

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send
        self._takes_events = False
        self._tail = b"\n\n"

    async def start(self, response: aiohttp.ClientResponse) -> None:
        headers = passed_on(response.raw_headers)
        names = {name.lower() for name, _ in headers}
        self._takes_events = response.content_type == "text/event-stream" and not (
            names & {b"content-length", b"content-encoding"}
        )
        self.started = True
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})

    async def piece(self, body: bytes, more: bool = True) -> None:
        self._tail = (self._tail + body[-4:])[-4:]
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def fail(self, message: str, kind: str, status: int) -> None:
        """Say what went wrong, if that is still possible; otherwise the server closes the unfinished answer."""
        error = encoded(error_fields(message, kind, status))
        if not self.started:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(error)).encode())]
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": error})
        elif self._takes_events and self._tail.endswith((b"\n\n", b"\r\n\r\n")):  # not in the middle of an event
            await self.piece(b"data: " + error + b"\n\n", more=False)


class Forward:
    """The ASGI application of every path that is not the router's own. timeout: seconds for one request, all in all."""

    def __init__(self, pool: WorkerPool, upstream: Upstream, timeout: float, max_body_bytes: int) -> None:
        self._pool, self._upstream, self._timeout, self._max_body_bytes = pool, upstream, timeout, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(send)
        with suppress(ClientLeft):
            if failure := await self._failure(scope, receive, reply):
                with suppress(TimeoutError):  # a client that reads nothing is not waited for
                    async with asyncio.timeout(LAST_WORD):
                        await reply.fail(*failure)

    async def _failure(self, scope: Scope, receive: Receive, reply: Reply) -> tuple[str, str, int] | None:
        """Answer the request; (message, type, status) of what went wrong."""
        try:
            async with asyncio.timeout(self._timeout):
                request = await read_incoming(scope, receive, self._max_body_bytes)
                await unless_left(receive, self._attempts(request, reply))
        except asyncio.CancelledError:  # by the server, at the end of its grace period, and by nobody else
            return "the router is stopping", "stopping", 503
        except TimeoutError:
            return f"no answer within {self._timeout:g} s", "timeout", 504
        except TooLarge as error:
            return str(error), "request_too_large", 413
        except UserError as error:
            return str(error), "invalid_request_error", 400
        except NoWorker as error:
            return str(error), "no_worker", 503
        except WorkerFailed as error:
            return f"the worker failed in the middle of its answer: {error}", "worker_failed", 502

    async def _attempts(self, request: Incoming, reply: Reply) -> None:
        session, failed = session_key(request), dict[str, str]()
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE * attempt)
            worker = self._pool.choose(session, failed)
            if worker is None:
                break
            self._pool.retries += attempt > 0
            try:
                return await self._attempt(worker, request, reply, last=attempt == ATTEMPTS - 1, failed=failed)
            except WorkerFailed as error:
                log.warning("%s %s on %s: %s", request.method, request.target, worker.url, error)
                if reply.started:
                    raise
                failed[worker.url] = str(error)
        reasons = "; ".join(f"{url}: {reason}" for url, reason in failed.items())
        raise NoWorker(f"no worker could answer: {reasons}" if failed else "no worker is healthy")

    async def _attempt(
        self, worker: Worker, request: Incoming, reply: Reply, last: bool, failed: dict[str, str]
    ) -> None:
        with worker.busy(), ExitStack() as closing:
            request = await self._handed_off(request)
            response, piece = await _while_alive(worker, self._open(worker, request, closing))
            # A worker that is stopping, stuck or broken says 503 at once. The last one's word is the answer.
            if response.status == 503 and not last and self._pool.has_other({worker.url, *failed}):
                raise WorkerFailed("answers 503")
            await reply.start(response)
            while piece:
                await reply.piece(piece)
                piece = await _next_piece(worker, response)
            await reply.piece(b"", more=False)

    async def _handed_off(self, request: Incoming) -> Incoming:
        """With a ticket for the prompt's cache blocks, where there are prefill workers; as it is when that does not work: the
        prompt is then computed by the worker that answers."""
        prefill = self._pool.choose_prefill() if request.method == "POST" and request.path in HANDED_OFF else None
        if prefill is None:
            return request
        try:
            with prefill.busy(), ExitStack() as closing:
                asked = replace(request, target=f"/prefill{request.target}")
                response, body = await _while_alive(prefill, self._open(prefill, asked, closing))
                while piece := await _next_piece(prefill, response):
                    body += piece
                if response.status != 200:
                    raise WorkerFailed(f"answers {response.status}")
            ticket = json.dumps(json.loads(body)["ticket"], separators=(",", ":"))
        except (WorkerFailed, ValueError, KeyError, TypeError) as error:
            self._pool.handoffs_failed += 1
            log.warning("%s computes no prompt: %s", prefill.url, error)
            return request
        self._pool.handed_off += 1
        return replace(request, headers=(*request.headers, ("X-Arcforge-Handoff", ticket)))

    async def _open(
        self, worker: Worker, request: Incoming, closing: ExitStack
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """The head of the answer and the first piece of its body. The answer is closed with `closing`."""
        try:
            response = await self._upstream.send(worker.url, request)
        except aiohttp.ClientConnectorError as error:
            raise WorkerFailed(worker.no_connection(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _broke(worker, error) from None
        closing.callback(response.close)
        return response, await _next_piece(worker, response)


async def _next_piece(worker: Worker, response: aiohttp.ClientResponse) -> bytes:
    """What has come of the body; empty at its end."""
    try:
        return await response.content.readany()
    except (aiohttp.ClientError, OSError) as error:
        raise _broke(worker, error) from None


def _broke(worker: Worker, error: Exception) -> WorkerFailed:
    worker.wake.set()  # ask for a heartbeat now: most likely the process is gone
    return WorkerFailed(f"the connection broke: {type(error).__name__}: {error}")


async def _while_alive(worker: Worker, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; WorkerFailed when the heartbeats give its worker up before it is there."""
    task = asyncio.create_task(work)
    worker.waiting.add(task)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise WorkerFailed(worker.problem) from None
    finally:
        worker.waiting.discard(task)
