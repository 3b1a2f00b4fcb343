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
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from arcforge.chat.stream import CallReady, ContentDelta, ReasoningDelta
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import ToolCall
from arcforge.serve.chat_schema import ChatBody
from arcforge.serve.http import answer, event, event_stream, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.names import check_model
from arcforge.serve.token_answers import output_ids, output_logprobs, weight_versions
from arcforge.serve.turns import Piece, Turn, Turns


class ChatApi:
    """Renders messages to ids, runs them, reads the sampled ids back as a message."""

    def __init__(self, engine: EngineLoop, tokenizer: Tokenizer, model_name: str, limits: Limits) -> None:
        self._tokenizer, self._model_name = tokenizer, model_name
        self._turns = Turns(engine, tokenizer, limits.request_timeout)

    def router(self) -> APIRouter:
        router = APIRouter(tags=["chat"])
        router.post("/v1/chat/completions")(self.completions)
        return router

    async def completions(self, body: ChatBody, request: Request) -> Response:
        check_model(body.model, self._model_name)
        turn = body.turn(self._tokenizer)
        prompt = self._turns.prompt(turn)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self._model_name}
        choices = [Choice(self._tokenizer, body, index) for index in range(body.choices)]
        runs = [self._turns.run(_seeded(turn, c.index), prompt, f"{head['id']}-{c.index}") for c in choices]
        if body.stream:
            first = await anext(runs[0])  # a request the engine refuses is answered by a status, not by a broken stream
            return event_stream(self._events(body, prompt, head, choices, runs, first))

        async def whole(choice: Choice, run: AsyncGenerator[Piece, None]) -> dict[str, Any]:
            async with aclosing(run):
                async for piece in run:
                    choice.take(piece)
            return choice.message()

        made = await unless_left(request.receive, asyncio.gather(*map(whole, choices, runs)))
        completion = {**head, "object": "chat.completion", "choices": made, "usage": self._usage(prompt, choices)}
        if body.return_token_ids:
            completion["prompt_token_ids"] = prompt
        return answer(completion)

    async def _events(
        self,
        body: ChatBody,
        prompt: list[int],
        head: dict[str, Any],
        choices: list[Choice],
        runs: list[AsyncGenerator[Piece, None]],
        first: Piece,
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events: one per piece of a turn, the last of a choice with its finish reason, usage, [DONE]."""
        head = {**head, "object": "chat.completion.chunk"}
        for choice in choices:
            opening = {"prompt_token_ids": prompt} if body.return_token_ids and not choice.index else {}
            yield event({**head, **opening, "choices": [choice.chunk({"role": "assistant", "content": ""})]})
        yield event({**head, "choices": [choices[0].delta(first)]})
        async with aclosing(_merged(runs)) as pieces:
            async for index, piece in pieces:
                yield event({**head, "choices": [choices[index].delta(piece)]})
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": self._usage(prompt, choices)})
        yield b"data: [DONE]\n\n"

    def _usage(self, prompt: list[int], choices: list[Choice]) -> dict[str, Any]:
        completion = sum(len(choice.ids) for choice in choices)
        return {
            "prompt_tokens": len(prompt),
            "completion_tokens": completion,
            "total_tokens": len(prompt) + completion,
            "prompt_tokens_details": {"cached_tokens": choices[0].cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": sum(choice.reasoning_tokens for choice in choices)},
        }


class Choice:
    """One answer as it grows."""

    def __init__(self, tokenizer: Tokenizer, body: ChatBody, index: int) -> None:
        self._tokenizer, self._body, self.index = tokenizer, body, index
        self.ids: list[int] = []
        self.cached_tokens = 0
        self._texts: dict[str, list[str]] = {"reasoning": [], "content": []}
        self._calls: list[dict[str, Any]] = []
        self._pieces: list[Piece] = []
        self._thinks = body.turn_thinks

    @property
    def reasoning_tokens(self) -> int:
        end_think = self._tokenizer.id("</think>")
        if not self._thinks:
            return 0
        return self.ids.index(end_think) if end_think in self.ids else len(self.ids)

    def take(self, piece: Piece) -> dict[str, Any]:
        """Remember a piece; the fields of a streamed delta that it makes."""
        delta: dict[str, Any] = {}
        for said in piece.events:
            if isinstance(said, CallReady):
                call = {"index": len(self._calls), **_call(said.call)}
                self._calls.append(call)
                delta.setdefault("tool_calls", []).append(call)
                continue
            assert isinstance(said, ReasoningDelta | ContentDelta)
            name = "reasoning" if isinstance(said, ReasoningDelta) else "content"
            self._texts[name].append(said.text)
            delta[name] = delta.get(name, "") + said.text
        if "reasoning" in delta:
            delta["reasoning_content"] = delta["reasoning"]
        self._pieces.append(piece)
        self.ids += output_ids(piece.spans)
        self.cached_tokens = self.cached_tokens or piece.cached_tokens
        return delta

    def delta(self, piece: Piece) -> dict[str, Any]:
        first = len(self.ids)
        return self.chunk(self.take(piece), self._tokens([piece], first) | _ending(piece))

    def chunk(self, delta: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"index": self.index, "delta": delta, "finish_reason": None, **(more or {})}

    def message(self) -> dict[str, Any]:
        """The whole choice, once its last piece was taken."""
        reasoning, content = ("".join(self._texts[name]) for name in ("reasoning", "content"))
        fields: dict[str, Any] = {
            "role": "assistant",
            "content": content or (None if self._calls else ""),
            "reasoning": reasoning if self._thinks else None,
            "reasoning_content": reasoning if self._thinks else None,
        }
        if self._calls:
            fields["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in self._calls]
        last = self._pieces[-1]
        return {"index": self.index, "message": fields, **_ending(last), **self._tokens(self._pieces, 0)}

    def _tokens(self, pieces: list[Piece], first: int) -> dict[str, Any]:
        """What a choice tells of the tokens of these pieces; `first`: place of the first one in the turn."""
        fields: dict[str, Any] = {}
        spans = [span for piece in pieces for span in piece.spans]
        if self._body.return_token_ids:
            fields["token_ids"] = output_ids(spans)
            fields["weight_versions"] = weight_versions(spans, first)
        if self._body.logprobs:
            tops = [top for piece in pieces for top in piece.top_logprobs]
            told = zip(output_ids(spans), output_logprobs(spans), tops or [[]] * len(output_ids(spans)))
            fields["logprobs"] = {"content": [self._logprob(i, p, top) for i, p, top in told]}
        return fields

    def _logprob(self, i: int, logprob: float, top: list[tuple[int, float]]) -> dict[str, Any]:
        return {**self._token(i, logprob), "top_logprobs": [self._token(*pair) for pair in top]}

    def _token(self, i: int, logprob: float) -> dict[str, Any]:
        return {"token": self._tokenizer.piece(i), "token_id": i, "logprob": logprob, "bytes": None}


def _seeded(turn: Turn, index: int) -> Turn:
    if not index:
        return turn
    seed = (turn.sampling.seed + index) % 2**63
    return turn.model_copy(update={"sampling": turn.sampling.model_copy(update={"seed": seed})})


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": call.id or f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _ending(piece: Piece) -> dict[str, Any]:
    if not piece.finish_reason:
        return {}
    fields: dict[str, Any] = {"finish_reason": piece.finish_reason}
    if piece.stop_string is not None:
        fields["stop_reason"] = piece.stop_string
    return fields | ({"problem": piece.problem} if piece.problem else {})


async def _merged(runs: list[AsyncGenerator[Piece, None]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all runs as they come, with the number of the run. All runs end with this one."""
    tasks = {asyncio.ensure_future(anext(run, None)): index for index, run in enumerate(runs)}
    try:
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index, piece = tasks.pop(task), task.result()
                if piece is not None:
                    yield index, piece
                    tasks[asyncio.ensure_future(anext(runs[index], None))] = index
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in runs:
            await run.aclose()
