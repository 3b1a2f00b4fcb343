"""The HTTP application around one EngineLoop. Its OpenAPI description is at /openapi.json, a page of it at /docs.

POST /generate /inference/v1/generate /score /reward           token ids in, token ids or numbers out
POST /v1/chat/completions /v1/completions /v1/messages         text, tools, thinking
POST /update_weights /pause /resume /abort                     control of this one engine; `peer_control_api` has other names
GET  /health /is_paused /metrics /v1/models
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from arcforge import __version__
from arcforge.chat.tokenizer import Tokenizer
from arcforge.serve.chat_api import ChatApi
from arcforge.serve.completions_api import CompletionsApi
from arcforge.serve.control_api import ControlApi
from arcforge.serve.handoff_api import HandoffApi, TakesHandoffs
from arcforge.serve.http import JsonBodies, add_error_answers
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.messages_api import MessagesApi
from arcforge.serve.metrics import Metrics
from arcforge.serve.peer_control_api import PeerControlApi
from arcforge.serve.record import EngineRecord
from arcforge.serve.token_api import TokenApi
from arcforge.serve.transport import Transport

STOP_SECONDS = 2.0  # for the engine's thread to come back when the server stops


def build_app(
    engine: EngineLoop,
    tokenizer: Tokenizer,
    model_name: str,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    max_length: int = 0,
    transport: Transport | None = None,
    drafts: bool = False,
    record: EngineRecord | None = None,
) -> FastAPI:
    """The application; its lifespan starts and stops the engine's thread. max_length: tokens of a request, told to clients.
    transport: of hand-offs between prefill and decode workers (`handoff_api`); drafts: whether the engine speculates. record: of
    finished token requests."""
    limits, metrics = limits or Limits(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop, STOP_SECONDS)
        if transport is not None:
            transport.close()

    app = FastAPI(title="arcforge", version=__version__, lifespan=lifespan)
    app.add_middleware(JsonBodies, most=limits.max_body_bytes)  # type: ignore[arg-type]
    add_error_answers(app)
    apis = [
        TokenApi(engine, tokenizer, limits, record),
        ChatApi(engine, tokenizer, model_name, limits),
        CompletionsApi(engine, tokenizer, model_name, limits),
        MessagesApi(engine, tokenizer, model_name, limits),
        ControlApi(engine, metrics, model_name, max_length, limits),
        PeerControlApi(engine, model_name, limits),
    ]
    if transport is not None:
        app.add_middleware(TakesHandoffs, engine=engine, transport=transport)  # type: ignore[arg-type]
        apis.append(HandoffApi(engine, tokenizer, model_name, limits, transport, drafts))
    for api in apis:
        app.include_router(api.router())
    return app
