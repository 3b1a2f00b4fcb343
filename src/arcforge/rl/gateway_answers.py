"""A recorded turn as OpenAI's and Anthropic's APIs tell it, whole or as the events of a stream, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from arcforge.chat.stream import CallReady, ContentDelta, Event, ReasoningDelta
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import BoundaryError, GatewayError
from arcforge.rl.gateway import NotOpen, Sampled
from arcforge.serve import http
from arcforge.serve.chat_api import Choice
from arcforge.serve.chat_schema import ChatBody
from arcforge.serve.http import answer, event, problem
from arcforge.serve.messages_api import Reply
from arcforge.serve.turns import Piece

_ANTHROPIC_KINDS = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large"}


def as_completion(sampled: Sampled, body: ChatBody, head: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """OpenAI's chat.completion."""
    choice = Choice(tokenizer, body, 0)
    for piece in _pieces(sampled):
        choice.take(piece)
    usage = _usage(sampled, choice)
    completion = {**head, "object": "chat.completion", "choices": [choice.message()], "usage": usage}
    return completion | ({"prompt_token_ids": sampled.prompt_ids} if body.return_token_ids else {})


def chunks(sampled: Sampled, body: ChatBody, head: dict[str, Any], tokenizer: Tokenizer) -> Iterator[bytes]:
    """OpenAI's chat.completion.chunk events: the role, the parts of the turn, usage where it is asked for, [DONE]."""
    head = {**head, "object": "chat.completion.chunk"}
    choice = Choice(tokenizer, body, 0)
    opening = {"prompt_token_ids": sampled.prompt_ids} if body.return_token_ids else {}
    yield event({**head, **opening, "choices": [choice.chunk({"role": "assistant", "content": ""})]})
    for piece in _pieces(sampled):
        yield event({**head, "choices": [choice.delta(piece)]})
    if body.stream_options is not None and body.stream_options.include_usage:
        yield event({**head, "choices": [], "usage": _usage(sampled, choice)})
    yield b"data: [DONE]\n\n"


def as_message(sampled: Sampled, model_name: str) -> dict[str, Any]:
    """Anthropic's message."""
    reply = Reply(model_name, len(sampled.prompt_ids))
    for piece in _pieces(sampled):
        reply.take(piece)
    return reply.message()


def message_events(sampled: Sampled, model_name: str) -> Iterator[bytes]:
    """Anthropic's events, from message_start to message_stop."""
    reply, pieces = Reply(model_name, len(sampled.prompt_ids)), _pieces(sampled)
    yield reply.start(pieces[0])
    for piece in pieces:
        yield from reply.take(piece)


def _pieces(sampled: Sampled) -> list[Piece]:
    """One for each part of the turn; the last one has its tokens and how it ended. Both APIs know no malformed turns: what
    could be read of one is told as a turn that ended."""
    completion, message = sampled.completion, sampled.completion.message
    said: list[Event] = [ReasoningDelta(message.reasoning)] if message.reasoning else []
    said += [ContentDelta(message.content)] if message.content else []
    said += [CallReady(index, call) for index, call in enumerate(message.tool_calls)]
    ended = completion.finish_reason
    if ended == "malformed":
        ended = "tool_calls" if message.tool_calls else "stop"
    last = Piece(spans=sampled.spans, finish_reason=ended, problem=completion.problem)
    return [*(Piece([one]) for one in said), last]


def _usage(sampled: Sampled, choice: Choice) -> dict[str, Any]:
    prompt, completion = len(sampled.prompt_ids), len(choice.ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": choice.reasoning_tokens},
    }


def add_error_answers(app: FastAPI) -> None:
    """As in `serve.http`, and: 404 for a rollout that is not open, 400 for what the gateway refuses, 503 for every other
    failure; in Anthropic's shape under /v1/messages."""
    http.add_error_answers(app)
    app.add_exception_handler(GatewayError, _refused)
    app.add_exception_handler(BoundaryError, _failed)
    app.add_exception_handler(Exception, _failed)
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _in_shape(handler))


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, NotOpen):
        return problem(str(error), "not_found", 404)
    return problem(str(error), "invalid_request_error", 400)


async def _failed(request: Request, error: Exception) -> Response:
    said = str(error) if isinstance(error, BoundaryError) else f"{type(error).__name__}: {error}"
    return problem(said, "engine_error", 503)


def _in_shape(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(request: Request, error: Exception) -> Response:
        response: Response = await handler(request, error)
        if "/v1/messages" not in request.url.path:
            return response
        message = orjson.loads(bytes(response.body))["error"]["message"]
        kind = _ANTHROPIC_KINDS.get(response.status_code, "api_error")
        return answer({"type": "error", "error": {"type": kind, "message": message}}, response.status_code)

    return handle
