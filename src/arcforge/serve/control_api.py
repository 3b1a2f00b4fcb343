"""Weights, pause, health and counters of one engine; nothing is forwarded to others. Under SGLang's and vLLM's names the same is
in `peer_control_api`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field
from starlette.responses import Response

from arcforge.core.errors import UserError
from arcforge.serve.engine import Health, PauseMode
from arcforge.serve.http import answer, problem
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.metrics import Metrics
from arcforge.serve.token_schema import Body

SHARED = "shm:"
"""Beginning of a name of weights in shared memory, where a folder would stand."""


class AbortBody(Body):
    rid: str = ""


class UpdateBody(Body):
    """folder: a checkpoint folder on the server's machine, or shm:NAME, a safetensors image in shared memory."""

    folder: str = Field(min_length=1)
    version: int = Field(ge=0, lt=2**62)


class PauseBody(Body):
    mode: PauseMode


class ControlApi:
    """The routes that a trainer, a router or an operator calls."""

    def __init__(self, engine: EngineLoop, metrics: Metrics, model_name: str, max_length: int, limits: Limits) -> None:
        self._engine, self._metrics, self._model_name, self._limits = engine, metrics, model_name, limits
        self._max_length, self._started = max_length, int(time.time())

    def router(self) -> APIRouter:
        router = APIRouter(tags=["control"])
        router.post("/abort")(self.abort)
        router.post("/update_weights")(self.update_weights)
        router.post("/pause")(self.pause)
        router.post("/resume")(self.resume)
        router.get("/is_paused")(self.is_paused)
        router.get("/health")(self.health)
        router.get("/metrics")(self.metrics)
        router.get("/v1/models")(self.models)
        return router

    async def abort(self, body: AbortBody) -> Response:
        return answer({"aborted": await self._engine.abort(body.rid)})

    async def update_weights(self, body: UpdateBody) -> Response:
        """Running requests go on under the new weights; every token tells the version that sampled it."""
        source = checked_source(body.folder, "folder")
        await self._engine.update_weights(source, body.version, self._limits.request_timeout)
        return answer({"version": body.version})

    async def pause(self, mode: PauseMode | None = None, body: PauseBody | None = None) -> Response:
        """keep: freeze running requests; wait: finish them; abort: end them. New ones are held until /resume. vLLM sends the mode
        as a query, ours in the body."""
        asked = body.mode if body is not None else mode
        if asked is None:
            raise UserError("mode: keep, wait or abort is needed")
        await self._engine.pause(asked, self._limits.request_timeout)
        return answer({"paused": asked})

    async def resume(self) -> Response:
        await self._engine.resume()
        return answer({"paused": ""})

    async def is_paused(self) -> Response:
        return answer({"is_paused": bool(self._engine.health().paused)})

    async def health(self) -> Response:
        """503 when the engine's loop is stuck, has failed or has stopped, not only when HTTP does."""
        health = self._engine.health()
        if health.problem:
            return problem(health.problem, "unhealthy", 503)
        return answer(health_fields(health))

    async def metrics(self) -> Response:
        """Prometheus."""
        totals, of_engine = await self._engine.statistics()
        self._metrics.refresh(self._engine.health(), totals, of_engine)
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        model = {"id": self._model_name, "object": "model", "created": self._started, "owned_by": "arcforge"}
        return answer({"object": "list", "data": [{**model, "max_model_len": self._max_length}]})


def health_fields(health: Health) -> dict[str, Any]:
    return {
        "version": health.version,
        "running": health.running,
        "waiting": health.waiting,
        "seconds_since_step": round(health.seconds_since_step, 3),
        "paused": health.paused,
    }


def checked_source(source: str, field: str) -> str:
    """`source` where it is a folder, or weights in shared memory; UserError names the field."""
    if not source.startswith(SHARED) and not Path(source).is_dir():
        raise UserError(f"{field}: {source:.200}: no such checkpoint folder on the server's machine")
    return source
