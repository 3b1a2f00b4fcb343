"""The gateway's HTTP door, for agents that are programs of their own (GLM-5 report, section 4.1.2).

    POST   /rollouts/ID                            opens a record; body, all optional: `Fixed`
    POST   /rollouts/ID/v1/chat/completions        OpenAI's chat, streamed or not; base URL http://HOST:PORT/rollouts/ID/v1
    POST   /rollouts/ID/v1/messages                Anthropic's chat, streamed or not; base URL http://HOST:PORT/rollouts/ID
    POST   /rollouts/ID/v1/messages/count_tokens
    DELETE /rollouts/ID                            closes it; {"rollout_id", "forks": [[span, ..], ..]}

An agent whose base URL is set so is recorded like one of ours: its requests become `CompletionRequest`s of the session ID,
opened here or in the process of the gateway. It may name any model and bring any key. A turn is answered once it is whole,
because it is recorded as one; a stream then tells it in a few pieces. The model's stop tokens end a turn and all of it is
recorded, so what would cut it elsewhere or take other tokens than the model's own is refused with 400: stop strings, a
call that is asked for, several choices, truncated sampling.

400 bad input, 404 no such rollout, 409 opened twice, 503 when the engine failed (the record is as before, the request may be
sent again); errors have the shape of the API they come from. Whoever reaches the port may open, read and close rollouts.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import Field
from starlette.responses import Response

from arcforge.chat.template import render
from arcforge.core.errors import EngineError, GatewayError, UserError
from arcforge.core.protocols import CompletionRequest
from arcforge.rl.gateway import Gateway, Sampled, Session
from arcforge.rl.gateway_answers import add_error_answers, as_completion, as_message, chunks, message_events
from arcforge.serve.chat_schema import ChatBody, ThinkingField
from arcforge.serve.http import JsonBodies, answer, event_stream, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.listener import bind, server
from arcforge.serve.messages_schema import CountBody, MessagesBody
from arcforge.serve.messages_schema import ThinkingField as MessagesThinking
from arcforge.serve.token_schema import Exact, Seed
from arcforge.serve.turns import Turn

START_SECONDS = 10.0
STOP_SECONDS = 10.0

AnyBody = TypeVar("AnyBody", ChatBody, MessagesBody)


class Fixed(Exact):
    """What the rollout's owner decides in place of the agent: how every turn is sampled, and whether it thinks."""

    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Seed | None = None
    thinking: ThinkingField | None = None

    def put_into(self, body: AnyBody) -> AnyBody:
        update = self.model_dump(exclude_none=True, exclude={"thinking"})
        if self.thinking is not None:
            kind = ThinkingField if isinstance(body, ChatBody) else MessagesThinking
            clear = self.thinking.clear_thinking is not False
            update["thinking"] = kind(type=self.thinking.type, clear_thinking=clear)
        return body.model_copy(update=update)


class GatewayDoor:
    """The routes of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._tokenizer = gateway, gateway.tokenizer
        self._fixed: WeakKeyDictionary[Session, Fixed] = WeakKeyDictionary()
        self._calls: set[asyncio.Future[Sampled]] = set()
        self._stopping = False

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/rollouts/{rollout_id}")
        router.post("")(self.open)
        router.delete("")(self.close)
        router.post("/v1/chat/completions")(self.chat)
        router.post("/v1/messages")(self.messages)
        router.post("/v1/messages/count_tokens")(self.count)
        return router

    def stop(self) -> None:
        """Answer what waits for the engine, and all that still comes, with 503."""
        self._stopping = True
        for call in list(self._calls):
            call.cancel()

    async def open(self, rollout_id: str, request: Request, body: Fixed | None = None) -> Response:
        try:
            session = self._gateway.open(rollout_id)
        except GatewayError as error:
            raise HTTPException(409, str(error)) from None
        if body is not None:
            self._fixed[session] = body
        base = f"{str(request.base_url).rstrip('/')}/rollouts/{rollout_id}"
        return answer({"rollout_id": rollout_id, "openai_base_url": f"{base}/v1", "anthropic_base_url": base})

    async def close(self, rollout_id: str) -> Response:
        forks = self._gateway.close(rollout_id)
        return answer({"rollout_id": rollout_id, "forks": [[span.model_dump() for span in spans] for spans in forks]})

    async def chat(self, rollout_id: str, body: ChatBody, request: Request) -> Response:
        session = self._gateway.session(rollout_id)
        _refuse({"n": body.choices > 1, "top_logprobs": body.top_logprobs})
        body = self._decided(session, body)
        sampled = await self._sample(session, rollout_id, body.turn(self._tokenizer), request)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model or "arcforge"}
        if body.stream:
            return event_stream(_each(chunks(sampled, body, head, self._tokenizer)))
        return answer(as_completion(sampled, body, head, self._tokenizer))

    async def messages(self, rollout_id: str, body: MessagesBody, request: Request) -> Response:
        session = self._gateway.session(rollout_id)
        body = self._decided(session, body)
        sampled = await self._sample(session, rollout_id, body.turn(self._tokenizer), request)
        model_name = body.model or "arcforge"
        if body.stream:
            return event_stream(_each(message_events(sampled, model_name)))
        return answer(as_message(sampled, model_name))

    async def count(self, rollout_id: str, body: CountBody) -> Response:
        """Tokens of the conversation rendered afresh, which a record that grew by sampling may differ from by a few."""
        self._gateway.session(rollout_id)
        rendered = render(*body.conversation(), self._tokenizer, generation_prompt=True)
        return answer({"input_tokens": len(rendered.ids)})

    def _decided(self, session: Session, body: AnyBody) -> AnyBody:
        fixed = self._fixed.get(session)
        return body if fixed is None else fixed.put_into(body)

    async def _sample(self, session: Session, rollout_id: str, turn: Turn, request: Request) -> Sampled:
        """One turn of the session; a client that hangs up ends it, unrecorded."""
        if self._stopping:
            raise EngineError("the gateway is stopping")
        sampling = turn.sampling
        _refuse({"stop": turn.stop, "tool_choice": turn.forced is not None})
        _refuse({"top_k": sampling.top_k, "min_p": sampling.min_p, "logit_bias": sampling.logit_bias})
        asked = CompletionRequest(
            messages=turn.messages, tools=turn.tools, thinking=turn.thinking, sampling=sampling, session=rollout_id
        )
        call = asyncio.ensure_future(session.sample(asked))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await unless_left(request.receive, call)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise EngineError("the gateway is stopping") from None


def build_app(door: GatewayDoor) -> FastAPI:
    app = FastAPI(title="arcforge gateway")
    app.add_middleware(JsonBodies, most=Limits().max_body_bytes)  # type: ignore[arg-type]
    add_error_answers(app)
    app.include_router(door.router())
    return app


@asynccontextmanager
async def serve(gateway: Gateway, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The door in this event loop, beside what else runs there; gives its address. Port 0 picks a free one.

    Leaving answers the requests that still wait with 503 and frees the port. UserError when it cannot listen there.
    """
    sock, ready, door = bind(host, port), asyncio.Event(), GatewayDoor(gateway)
    running = server(build_app(door), None, ready.set)
    serving = asyncio.create_task(running.serve([sock]), name="gateway")
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait((serving, started), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not ready.is_set():
            if serving.done():
                await serving  # raises what kept it from listening
            raise GatewayError(f"the gateway did not answer on {host} within {START_SECONDS:g} s")
        yield f"http://{host}:{sock.getsockname()[1]}"
    finally:
        started.cancel()
        door.stop()
        running.should_exit = True
        await asyncio.wait((serving,), timeout=STOP_SECONDS)
        serving.cancel()
        sock.close()


def _refuse(asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        if value:
            raise UserError(f"{name}: not supported by the gateway, which records whole turns; leave it out")


async def _each(events: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for one in events:
        yield one
