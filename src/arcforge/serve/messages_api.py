"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's chat over the token engine, streamed or not."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from arcforge.chat.stream import CallReady, ContentDelta, Event, ReasoningDelta
from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import ToolCall
from arcforge.serve.http import answer, as_problem, event, event_stream, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.messages_schema import CountBody, MessagesBody, call_input
from arcforge.serve.names import check_model
from arcforge.serve.token_answers import output_ids
from arcforge.serve.turns import Piece, Turns

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesApi:
    """Anthropic's messages."""

    def __init__(self, engine: EngineLoop, tokenizer: Tokenizer, model_name: str, limits: Limits) -> None:
        self._tokenizer, self._model_name = tokenizer, model_name
        self._turns = Turns(engine, tokenizer, limits.request_timeout)

    def router(self) -> APIRouter:
        router = APIRouter(tags=["chat"])
        router.post("/v1/messages")(self.messages)
        router.post("/v1/messages/count_tokens")(self.count)
        return router

    async def count(self, body: CountBody) -> Response:
        check_model(body.model, self._model_name)
        messages, tools, thinking = body.conversation()
        ids = render(messages, tools, thinking, self._tokenizer, generation_prompt=True).ids
        return answer({"input_tokens": len(ids)})

    async def messages(self, body: MessagesBody, request: Request) -> Response:
        check_model(body.model, self._model_name)
        turn = body.turn(self._tokenizer)
        prompt = self._turns.prompt(turn)
        reply = Reply(self._model_name, len(prompt))
        pieces = self._turns.run(turn, prompt, reply.id)
        if body.stream:
            return event_stream(_events(reply, await anext(pieces), pieces), _broken)

        async def whole() -> dict[str, Any]:
            async with aclosing(pieces):
                async for piece in pieces:
                    reply.take(piece)
            return reply.message()

        return answer(await unless_left(request.receive, whole()))


class Reply:
    """One answer as it grows: blocks of thinking, text and tool calls, in the order in which they come."""

    def __init__(self, model_name: str, prompt_tokens: int) -> None:
        self.id = f"msg_{uuid.uuid4().hex[:24]}"
        self._model_name, self._prompt_tokens = model_name, prompt_tokens
        self._blocks: list[dict[str, Any]] = []
        self._tokens = self._cached = 0
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None

    def take(self, piece: Piece) -> list[bytes]:
        """Remember a piece; the events that tell of it."""
        self._tokens += len(output_ids(piece.spans))
        self._cached = self._cached or piece.cached_tokens
        events = [told for said in piece.events for told in self._said(said)]
        if piece.finish_reason:
            events += self._close()
            self._stop_reason = "stop_sequence" if piece.stop_string else STOP_REASONS[piece.finish_reason]
            self._stop_sequence = piece.stop_string
            events += self._end()
        return events

    def message(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self._model_name,
            "content": self._blocks,
            "stop_reason": self._stop_reason,
            "stop_sequence": self._stop_sequence,
            "usage": self.usage(),
        }

    def usage(self) -> dict[str, int]:
        """Anthropic counts input that came from a cache apart."""
        return {
            "input_tokens": self._prompt_tokens - self._cached,
            "cache_read_input_tokens": self._cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": self._tokens,
        }

    def start(self, first: Piece) -> bytes:
        """The event that opens a stream: a message without content."""
        self._cached = first.cached_tokens
        return event({"type": "message_start", "message": self.message()}, "message_start")

    def _said(self, said: Event) -> list[bytes]:
        if isinstance(said, CallReady):
            return self._call(said.call)
        assert isinstance(said, ReasoningDelta | ContentDelta)
        kind = "thinking" if isinstance(said, ReasoningDelta) else "text"
        events = [] if self._blocks and self._blocks[-1]["type"] == kind else [*self._close(), *self._open(kind)]
        self._blocks[-1][kind] += said.text
        return [*events, self._event("content_block_delta", delta={"type": f"{kind}_delta", kind: said.text})]

    def _call(self, call: ToolCall) -> list[bytes]:
        events = self._close()
        block = {"type": "tool_use", "id": call.id or f"toolu_{uuid.uuid4().hex[:24]}", "name": call.name, "input": {}}
        self._blocks.append(block)
        events.append(self._event("content_block_start", content_block={**block}))
        delta = {"type": "input_json_delta", "partial_json": call_input(call)}
        events.append(self._event("content_block_delta", delta=delta))
        block["input"] = call.arguments
        return events

    def _open(self, kind: str) -> list[bytes]:
        block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
        self._blocks.append(block)
        return [self._event("content_block_start", content_block={**block})]

    def _close(self) -> list[bytes]:
        return [self._event("content_block_stop")] if self._blocks else []

    def _event(self, name: str, **fields: Any) -> bytes:
        return event({"type": name, "index": len(self._blocks) - 1, **fields}, name)

    def _end(self) -> list[bytes]:
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        told = {"type": "message_delta", "delta": delta, "usage": self.usage()}
        return [event(told, "message_delta"), event({"type": "message_stop"}, "message_stop")]


async def _events(reply: Reply, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    yield reply.start(first)
    piece: Piece | None = first
    async with aclosing(rest):
        while piece is not None:
            for told in reply.take(piece):
                yield told
            piece = await anext(rest, None)


def _broken(error: Exception) -> bytes:
    message, kind, _ = as_problem(error)
    return event({"type": "error", "error": {"type": kind, "message": message}}, "error")
