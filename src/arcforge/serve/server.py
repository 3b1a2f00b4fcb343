"""The HTTP application around one EngineLoop: token API, control and health. The OpenAI part is in `chat_api`.

    POST /generate /score /reward /abort            token ids in, token ids or numbers out
    POST /update_weights /pause /resume             control of this one engine; nothing is forwarded
    GET  /health /metrics /v1/models
    POST /v1/chat/completions

A bad request is answered 400 (413 when too large) with one message, a reward asked of a checkpoint without a scalar
head 409, a paused, stopping, stuck or failed engine 503, an answer that took too long 504.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import EngineError, UserError
from arcforge.serve import wire
from arcforge.serve.chat_api import ChatApi
from arcforge.serve.engine import EnginePaused, EngineTimeout, Health
from arcforge.serve.loop import EngineLoop

STOP_SECONDS = 2.0  # for the engine's thread to come back when the server stops


@dataclass(frozen=True)
class Limits:
    """max_body_bytes of a request, request_timeout in seconds for one answer, max_batch sequences to score at once."""

    max_body_bytes: int = 32 << 20
    request_timeout: float = 600.0
    max_batch: int = 4096


def build_app(engine: EngineLoop, tokenizer: Tokenizer, model_name: str, limits: Limits | None = None) -> Starlette:
    """The application; its lifespan starts and stops the engine's thread."""
    limits = limits or Limits()
    tokens = TokenApi(engine, tokenizer, limits)
    control = ControlApi(engine, model_name, limits)
    chat = ChatApi(engine, tokenizer, model_name, limits.max_body_bytes, limits.request_timeout)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop, STOP_SECONDS)

    routes = [
        Route("/generate", tokens.generate, methods=["POST"]),
        Route("/score", tokens.score, methods=["POST"]),
        Route("/reward", tokens.reward, methods=["POST"]),
        Route("/health", control.health),
        Route("/v1/chat/completions", chat.completions, methods=["POST"]),
        Route("/abort", control.abort, methods=["POST"]),
        Route("/update_weights", control.update_weights, methods=["POST"]),
        Route("/pause", control.pause, methods=["POST"]),
        Route("/resume", control.resume, methods=["POST"]),
        Route("/metrics", control.metrics),
        Route("/v1/models", control.models),
    ]
    handlers: dict[Any, Any] = {UserError: _failed, EngineError: _failed, ClientDisconnect: _left}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, wire.TooLarge):
        return wire.problem(str(error), "request_too_large", 413)
    if isinstance(error, UserError):
        return wire.problem(str(error), "invalid_request_error", 400)
    if isinstance(error, EngineTimeout):
        return wire.problem(str(error), "timeout", 504)
    return wire.problem(str(error), "paused" if isinstance(error, EnginePaused) else "engine_error", 503)


async def _left(request: Request, error: Exception) -> Response:
    """The client went away in the middle of its request; nobody reads this."""
    return Response(status_code=499)


class TokenApi:
    """Token ids in, token ids out."""

    def __init__(self, engine: EngineLoop, tokenizer: Tokenizer, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._vocab_size, self._stop_ids = tokenizer.vocab_size, tokenizer.stop_ids

    async def generate(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        ids = wire.token_ids(body.get("input_ids"), "input_ids", self._vocab_size)
        sampling = wire.sampling(body.get("sampling_params") or {}, self._stop_ids, self._vocab_size)
        rid = wire.text(body, "rid") or uuid.uuid4().hex
        watcher = asyncio.create_task(wire.abort_when_left(request, self._engine, rid))
        try:
            output = await self._engine.generate(ids, sampling, rid, self._limits.request_timeout)
        finally:
            watcher.cancel()
        return wire.answer(wire.generated(output, rid, body.get("return_logprob") is not False))

    async def score(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        if ("input_ids" in body) == ("batch" in body):
            raise UserError("one of input_ids and batch is needed")
        single = "input_ids" in body
        batch = self._batch([body["input_ids"]] if single else body["batch"], "input_ids" if single else "batch")
        logprobs = await self._engine.score(batch, self._limits.request_timeout)
        return wire.answer({"logprobs": logprobs[0] if single else logprobs})

    async def reward(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        batch = self._batch(body.get("ids"), "ids")
        try:
            rewards = await self._engine.reward(batch, self._limits.request_timeout)
        except UserError as error:
            return wire.problem(str(error), "no_reward_model", 409)
        return wire.answer({"rewards": rewards})

    def _batch(self, value: Any, name: str) -> list[list[int]]:
        batch = wire.token_batch(value, name, self._vocab_size)
        if len(batch) > self._limits.max_batch:
            raise wire.TooLarge(f"{name}: {len(batch)} sequences; at most {self._limits.max_batch} in one request")
        return batch


class ControlApi:
    """Weights, pause, health and counters."""

    def __init__(self, engine: EngineLoop, model_name: str, limits: Limits) -> None:
        self._engine, self._model_name, self._limits = engine, model_name, limits
        self._started = int(time.time())

    async def abort(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        return wire.answer({"aborted": await self._engine.abort(wire.text(body, "rid"))})

    async def update_weights(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        folder = Path(wire.text(body, "folder"))
        if "version" not in body:
            raise UserError("version: the number of the new weights is needed")
        version = wire.integer(body, "version", 0, 0, 2**62)
        if not body.get("folder") or not folder.is_dir():
            raise UserError(f"folder: {folder}: no such checkpoint folder on the server's machine")
        await self._engine.update_weights(folder, version, self._limits.request_timeout)
        return wire.answer({"version": version})

    async def pause(self, request: Request) -> Response:
        body = await wire.read_json(request, self._limits.max_body_bytes)
        mode = body.get("mode")
        if mode not in ("keep", "wait", "abort"):
            raise UserError(f"mode: keep, wait or abort, not {mode!r:.40}")
        await self._engine.pause(mode, self._limits.request_timeout)
        return wire.answer({"paused": mode})

    async def resume(self, request: Request) -> Response:
        await self._engine.resume()
        return wire.answer({"paused": ""})

    async def health(self, request: Request) -> Response:
        health = self._engine.health()
        if health.problem:
            return wire.problem(health.problem, "unhealthy", 503)
        return wire.answer(_health_fields(health))

    async def metrics(self, request: Request) -> Response:
        health = self._engine.health()
        totals, of_engine = await self._engine.statistics()
        gauges = {**_health_fields(health), "paused": bool(health.paused), "healthy": not health.problem}
        lines: list[str] = []
        for name, value in totals.items():
            lines += [f"# TYPE arcforge_{name}_total counter", f"arcforge_{name}_total {value!r}"]
        for name, value in gauges.items():
            lines += [f"# TYPE arcforge_{name} gauge", f"arcforge_{name} {float(value)!r}"]
        lines += [f"arcforge_engine_{name} {value!r}" for name, value in of_engine.items()]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def models(self, request: Request) -> Response:
        model = {"id": self._model_name, "object": "model", "created": self._started, "owned_by": "arcforge"}
        return wire.answer({"object": "list", "data": [model]})


def _health_fields(health: Health) -> dict[str, Any]:
    return {
        "version": health.version,
        "running": health.running,
        "waiting": health.waiting,
        "seconds_since_step": round(health.seconds_since_step, 3),
        "paused": health.paused,
    }
