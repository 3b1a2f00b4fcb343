"""POST /v1/chat/completions: OpenAI's chat over the token engine, streamed or not.

Answers carry `reasoning` and `reasoning_content` (vLLM's and SGLang's name for the same text). `return_token_ids` adds
`prompt_token_ids`, `token_ids` and `weight_versions`. A turn that `chat.parse` finds malformed comes back with what
could be read and its `problem`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from arcforge.chat.parse import Parsed, parse
from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import EngineError, UserError
from arcforge.core.trajectory import TokenSpan
from arcforge.serve import wire
from arcforge.serve.chat_request import ChatRequest, read_chat
from arcforge.serve.chat_stream import TurnReader
from arcforge.serve.engine import EnginePaused, Output
from arcforge.serve.loop import EngineLoop

STREAM_TOKENS = 16  # a streamed turn is sampled and sent in pieces of so many tokens


class ChatApi:
    """Renders messages to ids, runs them, parses the sampled ids back to a message."""

    def __init__(
        self, engine: EngineLoop, tokenizer: Tokenizer, model_name: str, max_body_bytes: int, request_timeout: float
    ) -> None:
        self._engine, self._tokenizer, self._model_name = engine, tokenizer, model_name
        self._max_body_bytes, self._timeout = max_body_bytes, request_timeout

    async def completions(self, request: Request) -> Response:
        body = await wire.read_json(request, self._max_body_bytes)
        tokenizer = self._tokenizer
        chat = read_chat(body, self._model_name, tokenizer.stop_ids, tokenizer.vocab_size)
        prompt = render(chat.messages, chat.tools, chat.thinking, tokenizer, generation_prompt=True).ids
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self._model_name}
        if chat.stream:
            outputs = self._outputs(chat, prompt, head["id"])
            first = await anext(outputs)  # a request the engine refuses is answered 400 or 503, not by a broken stream
            return StreamingResponse(self._events(chat, prompt, head, first, outputs), media_type="text/event-stream")
        watcher = asyncio.create_task(wire.abort_when_left(request, self._engine, head["id"]))
        try:
            output = await self._engine.generate(prompt, chat.sampling, head["id"], self._timeout)
        finally:
            watcher.cancel()
        return wire.answer(self._completion(chat, prompt, head, _unless_aborted(output)))

    def _completion(self, chat: ChatRequest, prompt: list[int], head: dict[str, Any], output: Output) -> dict[str, Any]:
        ids = wire.output_ids(output.spans)
        parsed = parse(ids, self._tokenizer, chat.tools, chat.thinking)
        message = parsed.message
        fields: dict[str, Any] = {
            "role": "assistant",
            "content": message.content or (None if message.tool_calls else ""),
            "reasoning": message.reasoning,
            "reasoning_content": message.reasoning,
        }
        if message.tool_calls:
            fields["tool_calls"] = _tool_calls(parsed)
        choice = {"index": 0, "message": fields, **_ending(parsed, output.finish_reason)}
        choice |= self._tokens(chat, output.spans, 0)
        whole = {**head, "object": "chat.completion", "choices": [choice]}
        whole["usage"] = self._usage(chat, prompt, ids, output.cached_tokens)
        if chat.token_ids:
            whole["prompt_token_ids"] = prompt
        return whole

    async def _outputs(self, chat: ChatRequest, prompt: list[int], request_id: str) -> AsyncIterator[Output]:
        """The turn in pieces. Each continues the one before, whose tokens are in the engine's prefix cache."""
        sampled: list[int] = []
        end = asyncio.get_running_loop().time() + self._timeout
        while True:
            asked = min(STREAM_TOKENS, chat.sampling.max_tokens - len(sampled))
            seed = (chat.sampling.seed + len(sampled)) % 2**63
            sampling = chat.sampling.model_copy(update={"max_tokens": asked, "seed": seed})
            timeout = max(end - asyncio.get_running_loop().time(), 0.0)
            output = await self._engine.generate(prompt + sampled, sampling, f"{request_id}-{len(sampled)}", timeout)
            yield _unless_aborted(output)
            new = wire.output_ids(output.spans)
            sampled += new
            full = len(new) < asked or len(sampled) >= chat.sampling.max_tokens
            if output.finish_reason != "length" or full:
                return

    async def _events(
        self, chat: ChatRequest, prompt: list[int], head: dict[str, Any], first: Output, rest: AsyncIterator[Output]
    ) -> AsyncIterator[bytes]:
        """Server-sent events: one per piece of the turn, the tool calls and the finish reason, usage, [DONE]."""
        head = {**head, "object": "chat.completion.chunk"}
        opening = {"prompt_token_ids": prompt} if chat.token_ids else {}
        yield _event({**head, **opening}, {"role": "assistant", "content": ""})
        reader = TurnReader(self._tokenizer, chat.thinking)
        ids: list[int] = []
        output = first
        try:
            while True:
                grown = reader.feed(wire.output_ids(output.spans))
                yield _event(head, _delta(grown), self._tokens(chat, output.spans, len(ids)))
                ids += wire.output_ids(output.spans)
                following = await anext(rest, None)
                if following is None:
                    break
                output = following
        except (EngineError, UserError) as error:
            yield _data({"error": {"message": str(error), "type": "engine_error", "code": 503}})
            return
        parsed = parse(ids, self._tokenizer, chat.tools, chat.thinking)
        delta = _delta(reader.finish(parsed.message))
        if parsed.message.tool_calls:
            delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(_tool_calls(parsed))]
        yield _event(head, delta, _ending(parsed, output.finish_reason))
        if chat.usage:
            yield _data({**head, "choices": [], "usage": self._usage(chat, prompt, ids, first.cached_tokens)})
        yield b"data: [DONE]\n\n"

    def _tokens(self, chat: ChatRequest, spans: Sequence[TokenSpan], position: int) -> dict[str, Any]:
        """What a choice tells of its tokens; `position` of the first one in the turn."""
        fields: dict[str, Any] = {}
        if chat.token_ids:
            fields["token_ids"] = wire.output_ids(spans)
            runs = wire.weight_versions(spans)
            fields["weight_versions"] = [
                {**run, "start": run["start"] + position, "end": run["end"] + position} for run in runs
            ]
        if chat.logprobs:
            pairs = [pair for span in spans for pair in zip(span.ids, span.logprobs)]
            fields["logprobs"] = {"content": [self._logprob(i, logprob) for i, logprob in pairs]}
        return fields

    def _logprob(self, i: int, logprob: float) -> dict[str, Any]:
        return {"token": self._tokenizer.piece(i), "token_id": i, "logprob": logprob, "bytes": None, "top_logprobs": []}

    def _usage(self, chat: ChatRequest, prompt: list[int], ids: list[int], cached: int) -> dict[str, Any]:
        end_think, reasoning = self._tokenizer.id("</think>"), 0
        if chat.thinking.enabled:
            reasoning = ids.index(end_think) if end_think in ids else len(ids)
        return {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(ids),
            "total_tokens": len(prompt) + len(ids),
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }


def _unless_aborted(output: Output) -> Output:
    if output.finish_reason == "abort":
        raise EnginePaused("the request was aborted on the server; send it again")
    return output


def _tool_calls(parsed: Parsed) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for call in parsed.message.tool_calls
    ]


def _ending(parsed: Parsed, finish_reason: str) -> dict[str, Any]:
    finish = "tool_calls" if finish_reason == "stop" and parsed.message.tool_calls else finish_reason
    return {"finish_reason": finish, **({"problem": parsed.problem} if parsed.problem else {})}


def _delta(grown: dict[str, str]) -> dict[str, Any]:
    delta: dict[str, Any] = dict(grown)
    if "reasoning" in grown:
        delta["reasoning_content"] = grown["reasoning"]
    return delta


def _event(head: dict[str, Any], delta: dict[str, Any], choice: dict[str, Any] | None = None) -> bytes:
    fields = {"index": 0, "delta": delta, "finish_reason": None, **(choice or {})}
    return _data({**head, "choices": [fields]})


def _data(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
