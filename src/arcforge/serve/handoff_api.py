"""Prefill on one worker, decoding on another: a prompt's cache blocks change hands by ticket (GLM-5 report, section 3.6).

    POST /prefill/<path> with the body of that path      on the prefill worker: {"ticket", "tokens", "version"}
    POST <path> with X-Arcforge-Handoff: <ticket>        on the decode worker, which then starts from those blocks

A hand-off that does not work is logged and the prompt computed where it is decoded: the answer is the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine
from arcforge.infer.handoff import Blocks, export_prefix, import_prefix, pack, unpack
from arcforge.serve.chat_schema import ChatBody
from arcforge.serve.http import answer
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.messages_schema import MessagesBody
from arcforge.serve.names import check_model
from arcforge.serve.token_schema import GenerateBody, VllmGenerateBody, known_ids
from arcforge.serve.transport import Transport
from arcforge.serve.turns import Turn, Turns

HEADER = b"x-arcforge-handoff"
SECONDS = 10.0  # for the bytes of one hand-off to come

log = logging.getLogger(__name__)


class HandoffApi:
    """The prefill worker's routes. drafts: the engine speculates, and its MTP layer's keys are wanted too."""

    def __init__(
        self,
        engine: EngineLoop,
        tokenizer: Tokenizer,
        model_name: str,
        limits: Limits,
        transport: Transport,
        drafts: bool,
    ) -> None:
        self._engine, self._tokenizer, self._model_name = engine, tokenizer, model_name
        self._timeout, self._transport = limits.request_timeout, transport
        self._turns = Turns(engine, tokenizer, limits.request_timeout)
        self._tokens = 2 if drafts else 0  # the MTP layer catches up with a prompt when it first drafts

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/prefill", tags=["hand-off"])
        router.post("/generate")(self.generate)
        router.post("/inference/v1/generate")(self.vllm_generate)
        router.post("/v1/chat/completions")(self.chat)
        router.post("/v1/messages")(self.messages)
        return router

    async def generate(self, body: GenerateBody) -> Response:
        return await self._computed(body.input_ids, body.cache_salt)

    async def vllm_generate(self, body: VllmGenerateBody) -> Response:
        return await self._computed(body.token_ids, body.cache_salt or "")

    async def chat(self, body: ChatBody) -> Response:
        return await self._of_turn(body.model, body.turn(self._tokenizer))

    async def messages(self, body: MessagesBody) -> Response:
        return await self._of_turn(body.model, body.turn(self._tokenizer))

    async def _of_turn(self, model: str | None, turn: Turn) -> Response:
        check_model(model, self._model_name)
        return await self._computed(self._turns.prompt(turn), turn.sampling.cache_salt)

    async def _computed(self, ids: list[int], salt: str) -> Response:
        ids = known_ids(ids, "input_ids", self._tokenizer.vocab_size)
        sampling = Sampling(max_tokens=self._tokens, temperature=0, cache_salt=salt)
        await self._engine.generate(ids, sampling, f"prefill-{uuid.uuid4().hex}", self._timeout)

        def export(engine: Any) -> Blocks:
            assert isinstance(engine, Engine), "hand-offs need our own engine"
            return export_prefix(engine, ids, salt)

        blocks = await self._engine.with_engine(export, self._timeout)
        ticket = await asyncio.to_thread(lambda: self._transport.put(pack(blocks)))
        return answer({"ticket": ticket, "tokens": blocks.tokens, "version": blocks.header.version})


class TakesHandoffs:
    """Brings the blocks of a request's ticket into the cache before the request is read."""

    def __init__(self, app: ASGIApp, engine: EngineLoop, transport: Transport) -> None:
        self._app, self._engine, self._transport = app, engine, transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = next((value for name, value in scope.get("headers", ()) if name == HEADER), None)
        if scope["type"] == "http" and text is not None:
            try:
                await self._take(json.loads(text))
            except (EngineError, UserError, ValueError, RecursionError) as error:
                log.warning("a prompt is computed here after all: %s", error)
        await self._app(scope, receive, send)

    async def _take(self, ticket: Any) -> None:
        if not isinstance(ticket, dict):
            raise UserError("the ticket is no JSON object")
        try:
            blocks = await asyncio.to_thread(lambda: unpack(self._transport.get(ticket, SECONDS)))

            def take(engine: Any) -> int:
                assert isinstance(engine, Engine), "hand-offs need our own engine"
                return import_prefix(engine, blocks)

            await self._engine.with_engine(take, SECONDS)
        finally:
            await asyncio.to_thread(self._transport.release, ticket)
