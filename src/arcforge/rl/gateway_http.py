"""The gateway's HTTP door, for agents that are programs of their own (GLM-5 report, section 4.1.2).

    POST   /rollouts/ID                            opens a record; body, all optional: `Fixed`
    POST   /rollouts/ID/v1/chat/completions        OpenAI's chat, streamed or not; base URL http://HOST:PORT/rollouts/ID/v1
    POST   /rollouts/ID/v1/messages                Anthropic's chat, streamed or not; base URL http://HOST:PORT/rollouts/ID
    POST   /rollouts/ID/v1/messages/count_tokens
    GET    /rollouts/ID/v1/models
    DELETE /rollouts/ID                            closes it; {"rollout_id", "forks": [[span, ..], ..]}

An agent whose base URL is set so is recorded like one of ours: its requests become `CompletionRequest`s of the session ID,
opened here or in the process of the gateway. It may name any model and bring any key. A turn is answered once it is whole,
because it is recorded as one; a stream then tells it in a few pieces. The model's stop tokens end a turn and all of it is
recorded, so what would cut it elsewhere or take other tokens than the model's own is refused with 400: stop strings, a
call that is asked for, several choices, truncated sampling.

Where the owner decided the sampling (`Fixed`, `GatewayDoor.admit`), an agent's temperature, top_p, top_k, min_p, seed and
thinking are overridden by his: a policy is trained on what was sampled as the order says. max_tokens stays the agent's.

400 bad input or a context that is full, 404 no such rollout, 409 opened twice, 503 when the engine failed (the record is as
before, the request may be sent again); errors have the shape of the API they come from. Whoever reaches the port may open,
read and close rollouts.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.responses import Response

from arcforge.chat.template import render
from arcforge.core.errors import EngineError, GatewayError, UserError
from arcforge.core.messages import Sampling, Thinking
from arcforge.core.protocols import CompletionRequest
from arcforge.rl.gateway import Gateway, Sampled, Session
from arcforge.rl.gateway_answers import add_error_answers, as_completion, as_message, chunks, message_events
from arcforge.rl.visits import Fixed, Visit
from arcforge.serve.chat_schema import ChatBody
from arcforge.serve.http import JsonBodies, answer, event_stream, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.listener import bind, server
from arcforge.serve.messages_schema import CountBody, MessagesBody
from arcforge.serve.turns import Turn

MODEL = "arcforge"
UNDECIDED = Fixed.model_validate({})
START_SECONDS = 10.0
STOP_SECONDS = 10.0


class GatewayDoor:
    """The routes of one gateway. address: where it is served."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._tokenizer, self.address = gateway, gateway.tokenizer, ""
        self._visits: WeakKeyDictionary[Session, Visit] = WeakKeyDictionary()
        self._calls: set[asyncio.Future[Sampled]] = set()
        self._stopping = False

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/rollouts/{rollout_id}")
        router.post("")(self.open)
        router.delete("")(self.close)
        router.get("/v1/models")(self.models)
        router.post("/v1/chat/completions")(self.chat)
        router.post("/v1/messages")(self.messages)
        router.post("/v1/messages/count_tokens")(self.count)
        return router

    def admit(self, rollout_id: str, sampling: Sampling, thinking: Thinking) -> Visit:
        """What a rollout's agent, a program that is yet to start, is given and will have done. NotOpen when it is not open."""
        session = self._gateway.session(rollout_id)
        visit = self._visits[session] = Visit(Fixed.of(sampling, thinking), _address(self.address, rollout_id))
        return visit

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
        address = _address(str(request.base_url).rstrip("/"), rollout_id)
        visit = self._visits[session] = Visit(body or UNDECIDED, address)
        told = {"openai_base_url": visit.openai_url, "anthropic_base_url": visit.anthropic_url}
        return answer({"rollout_id": rollout_id, **told})

    async def close(self, rollout_id: str) -> Response:
        forks = self._gateway.close(rollout_id)
        return answer({"rollout_id": rollout_id, "forks": [[span.model_dump() for span in spans] for spans in forks]})

    async def models(self, rollout_id: str) -> Response:
        self._gateway.session(rollout_id)
        return answer({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]})

    async def chat(self, rollout_id: str, body: ChatBody, request: Request) -> Response:
        session, visit = self._visited(rollout_id)
        with visit.call():
            _refuse({"n": body.choices > 1, "top_logprobs": body.top_logprobs})
            body = visit.decided(body)
            turn = body.turn(self._tokenizer)
            sampled = await self._sample(session, rollout_id, turn, request)
            visit.answered(turn, sampled)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model or MODEL}
        if body.stream:
            return event_stream(_each(chunks(sampled, body, head, self._tokenizer)))
        return answer(as_completion(sampled, body, head, self._tokenizer))

    async def messages(self, rollout_id: str, body: MessagesBody, request: Request) -> Response:
        session, visit = self._visited(rollout_id)
        with visit.call():
            body = visit.decided(body)
            turn = body.turn(self._tokenizer)
            sampled = await self._sample(session, rollout_id, turn, request)
            visit.answered(turn, sampled)
        model_name = body.model or MODEL
        if body.stream:
            return event_stream(_each(message_events(sampled, model_name)))
        return answer(as_message(sampled, model_name))

    async def count(self, rollout_id: str, body: CountBody) -> Response:
        """Tokens of the conversation rendered afresh, which a record that grew by sampling may differ from by a few."""
        self._gateway.session(rollout_id)
        rendered = render(*body.conversation(), self._tokenizer, generation_prompt=True)
        return answer({"input_tokens": len(rendered.ids)})

    def _visited(self, rollout_id: str) -> tuple[Session, Visit]:
        session = self._gateway.session(rollout_id)
        if session not in self._visits:  # opened in this process, and nothing decided
            self._visits[session] = Visit(UNDECIDED, _address(self.address, rollout_id))
        return session, self._visits[session]

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
            sampled = await unless_left(request.receive, call)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise EngineError("the gateway is stopping") from None
        if not sampled.spans:
            used, most = len(sampled.prompt_ids), self._gateway.max_context
            # As both APIs' own servers say it: agents tell by these words that they have to shorten their history, or stop.
            raise UserError(f"prompt is too long: {used} tokens; this model's maximum context length is {most} tokens")
        return sampled


def _address(base: str, rollout_id: str) -> str:
    """UserError for an id that is more than one part of a path."""
    if "/" in rollout_id:
        raise UserError(f"rollout id {rollout_id!r}: it has a slash, and no address of its own")
    return f"{base}/rollouts/{quote(rollout_id)}"


def build_app(door: GatewayDoor) -> FastAPI:
    app = FastAPI(title="arcforge gateway")
    app.add_middleware(JsonBodies, most=Limits().max_body_bytes)  # type: ignore[arg-type]
    add_error_answers(app)
    app.include_router(door.router())
    return app


@asynccontextmanager
async def serve(door: GatewayDoor, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """The door in this event loop, beside what else runs there; gives its address. Port 0 picks a free one.

    Leaving answers the requests that still wait with 503 and frees the port. UserError when it cannot listen there.
    """
    sock, ready = bind(host, port), asyncio.Event()
    door.address = f"http://{host}:{sock.getsockname()[1]}"
    running = server(build_app(door), None, ready.set)
    serving = asyncio.create_task(running.serve([sock]), name="gateway")
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait((serving, started), timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not ready.is_set():
            if serving.done():
                await serving  # raises what kept it from listening
            raise GatewayError(f"the gateway did not answer on {host} within {START_SECONDS:g} s")
        yield door.address
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
