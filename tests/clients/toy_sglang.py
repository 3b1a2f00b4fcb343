"""SGLang's protocol without a model: what its server promises about pauses, updates and the version of an answer.

A token is 100 + the version of the weights that sampled it, so that an answer shows where the weights changed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from loopback import LoopbackServer
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

STEP = 0.004  # seconds for one token


class ToySglang(LoopbackServer):
    """Requests wait while it is paused; an abort ends those that run after one more token; weights load only when none runs."""

    def __init__(self) -> None:
        super().__init__()
        self.version = "default"
        self.paused = False
        self.running: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw) if raw else {}
        path = request.url.path
        self.calls.append(path)
        self.requests.append((path, body, dict(request.headers)))
        if path == "/generate":
            return JSONResponse(await self._generate(body))
        if path == "/pause_generation":
            self.paused = True
            while self.running:
                for aborted in self.running.values():
                    aborted.set()
                await asyncio.sleep(STEP)
        elif path == "/update_weights_from_disk":
            if self.running or body["model_path"].endswith("broken"):
                return JSONResponse({"success": False, "message": "cannot load"}, 400)
            self.version = body["weight_version"]
            return JSONResponse({"success": True, "message": "ok", "num_paused_requests": 0})
        elif path == "/continue_generation":
            self.paused = False
        elif path == "/model_info":
            return JSONResponse({"model_path": "m", "weight_version": self.version})
        elif path == "/abort_request":
            self.running[body["rid"]].set()
        return Response(b"")

    async def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        while self.paused:
            await asyncio.sleep(STEP)
        aborted = self.running[body["rid"]] = asyncio.Event()
        ids: list[int] = []
        while len(ids) < body["sampling_params"]["max_new_tokens"] and not aborted.is_set():
            await asyncio.sleep(STEP)
            ids.append(100 + (0 if self.version == "default" else int(self.version)))
        del self.running[body["rid"]]
        finish = {"type": "abort", "message": "aborted"} if aborted.is_set() else {"type": "length", "length": len(ids)}
        meta = {"id": body["rid"], "finish_reason": finish, "weight_version": self.version}
        meta["output_token_logprobs"] = [[-1.0, i, None] for i in ids]
        return {"text": "", "output_ids": ids, "meta_info": meta}
