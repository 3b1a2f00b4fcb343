"""Control of one engine under SGLang's and vLLM's names, so that what drives those servers drives ours.

    SGLang    /pause_generation /continue_generation /update_weights_from_disk /flush_cache /abort_request, GET /model_info
    vLLM      /collective_rpc (reload_weights) /update_weight_version /reset_prefix_cache /inference/v1/abort_requests,
              GET /weight_info; /pause and /resume are `control_api`'s

Labels of weights are texts of whole numbers there. vLLM loads first and labels afterwards: between the two the new weights
still have the old label, so a caller keeps the engine paused meanwhile.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from arcforge.core.errors import UserError
from arcforge.serve.control_api import checked_source
from arcforge.serve.engine import Engine, PauseMode
from arcforge.serve.http import answer
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.token_schema import Body


class PauseGenerationBody(Body):
    mode: Literal["abort", "in_place", "retract"] = "abort"


class UpdateFromDiskBody(Body):
    """Weights keep their label where none is given."""

    model_path: str = Field(min_length=1)
    weight_version: str | None = None
    flush_cache: bool = True
    abort_all_requests: bool = False


class AbortRequestBody(Body):
    rid: str = ""
    abort_all: bool = False


class CollectiveRpcBody(Body):
    method: str
    kwargs: dict[str, Any] = {}


class WeightVersionBody(Body):
    new_version: str


class AbortRequestsBody(Body):
    request_ids: list[str] = []


class PeerControlApi:
    """The routes; model_path: what /model_info tells."""

    def __init__(self, engine: EngineLoop, model_path: str, limits: Limits) -> None:
        self._engine, self._model_path, self._limits = engine, model_path, limits

    def router(self) -> APIRouter:
        router = APIRouter(tags=["control, as SGLang and vLLM name it"])
        router.post("/pause_generation")(self.pause_generation)
        router.post("/continue_generation")(self.continue_generation)
        router.post("/update_weights_from_disk")(self.update_weights_from_disk)
        router.post("/abort_request")(self.abort_request)
        for path in ("/flush_cache", "/reset_prefix_cache"):
            router.post(path)(self.flush)
        for path in ("/model_info", "/get_model_info"):
            router.get(path)(self.model_info)
        router.post("/collective_rpc")(self.collective_rpc)
        router.post("/update_weight_version")(self.update_weight_version)
        router.post("/inference/v1/abort_requests")(self.abort_requests)
        router.get("/weight_info")(self.weight_info)
        return router

    async def pause_generation(self, body: PauseGenerationBody) -> Response:
        """SGLang's in_place and retract are our keep: running requests go on after /continue_generation."""
        mode: PauseMode = "abort" if body.mode == "abort" else "keep"
        await self._engine.pause(mode, self._limits.request_timeout)
        return answer({"status": "ok", "paused": mode})

    async def continue_generation(self) -> Response:
        await self._engine.resume()
        return answer({"status": "ok", "paused": ""})

    async def update_weights_from_disk(self, body: UpdateFromDiskBody) -> Response:
        """Loads a folder of the server's machine; running requests go on under the new weights, or end first where asked to."""
        source = checked_source(body.model_path, "model_path")
        version = None if body.weight_version is None else _number(body.weight_version, "weight_version")

        def load(engine: Engine) -> int:
            engine.update_weights(source, engine.version if version is None else version)
            if body.flush_cache:
                engine.flush()
            return engine.version

        if body.abort_all_requests:
            await self._engine.abort_all()
        loaded = await self._engine.with_engine(load, self._limits.request_timeout)
        return answer({"success": True, "message": f"weights of version {loaded}", "num_paused_requests": 0})

    async def abort_request(self, body: AbortRequestBody) -> Response:
        if body.abort_all:
            return answer({"aborted": await self._engine.abort_all()})
        return answer({"aborted": int(await self._engine.abort(body.rid))})

    async def flush(self) -> Response:
        """Nothing cached so far starts another request."""
        await self._engine.flush()
        return answer({"success": True})

    async def model_info(self) -> Response:
        label = await self._label()
        return answer({"model_path": self._model_path, "is_generation": True, "weight_version": label})

    async def collective_rpc(self, body: CollectiveRpcBody) -> Response:
        """Of vLLM's worker methods the one that loads a folder; the weights keep their label."""
        if body.method != "reload_weights":
            raise UserError(f"method: {body.method!r:.100} is not known here; reload_weights is")
        folder = body.kwargs.get("weights_path")
        if not isinstance(folder, str) or not folder:
            raise UserError("kwargs.weights_path: a checkpoint folder is needed")
        source = checked_source(folder, "kwargs.weights_path")
        load = lambda engine: engine.update_weights(source, engine.version)  # noqa: E731
        await self._engine.with_engine(load, self._limits.request_timeout)
        return answer({"results": [None]})

    async def update_weight_version(self, body: WeightVersionBody) -> Response:
        version = _number(body.new_version, "new_version")
        await self._engine.with_engine(lambda engine: engine.set_version(version))
        return answer({"success": True, "new_version": str(version)})

    async def abort_requests(self, body: AbortRequestsBody) -> Response:
        """Those that are named, or all."""
        if not body.request_ids:
            return answer({"aborted": await self._engine.abort_all()})
        ended = [await self._engine.abort(_own_id(request_id)) for request_id in body.request_ids]
        return answer({"aborted": sum(ended)})

    async def weight_info(self) -> Response:
        return answer({"weight_version": await self._label()})

    async def _label(self) -> str:
        return str(await self._engine.with_engine(lambda engine: engine.version))


def _number(label: str, field: str) -> int:
    if not label.isdecimal() or int(label) >= 2**62:
        raise UserError(f"{field}: {label!r:.100} is no whole number, which versions of weights are here")
    return int(label)


def _own_id(request_id: str) -> str:
    """vLLM calls the requests of its token API so."""
    return request_id.removeprefix("generate-tokens-")
