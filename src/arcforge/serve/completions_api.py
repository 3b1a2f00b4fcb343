"""POST /v1/completions: OpenAI's plain completions. Text in a prompt never becomes control tokens; token ids may."""

from __future__ import annotations

import asyncio
import codecs
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from arcforge.chat.stop_strings import StopStrings
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.serve.chat_schema import SampledBody
from arcforge.serve.engine import EnginePaused, Output
from arcforge.serve.http import answer, event, event_stream, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.names import check_model
from arcforge.serve.token_answers import output_ids, output_logprobs, weight_versions
from arcforge.serve.token_schema import MOST_TOP_LOGPROBS, Ids, known_ids

DEFAULT_TOKENS = 16  # OpenAI's


class CompletionBody(SampledBody):
    prompt: str | Ids | list[str] | list[Ids]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)


@dataclass
class Text:
    """What was sampled for one prompt so far."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)
    versions: list[dict[str, int]] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None
    cached_tokens: int = 0
    finish_reason: str = ""


class CompletionsApi:
    """Continues texts."""

    def __init__(self, engine: EngineLoop, tokenizer: Tokenizer, model_name: str, limits: Limits) -> None:
        self._engine, self._tokenizer, self._model_name = engine, tokenizer, model_name
        self._timeout = limits.request_timeout

    def router(self) -> APIRouter:
        router = APIRouter(tags=["chat"])
        router.post("/v1/completions")(self.completions)
        return router

    async def completions(self, body: CompletionBody, request: Request) -> Response:
        check_model(body.model, self._model_name)
        prompts = [ids for ids in self._prompts(body) for _ in range(body.choices)]
        limit = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        sampling = body.sampling_of(self._tokenizer, limit, body.logprobs or 0)
        sampling = sampling.model_copy(update={"prompt_logprobs": bool(body.echo and body.logprobs is not None)})
        head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time())}
        head["model"] = self._model_name
        if body.stream:
            if len(prompts) > 1 or body.echo:
                raise UserError("stream: one prompt, one choice and no echo where it is streamed")
            pieces = self._run(body, prompts[0], sampling, head["id"])
            first = await anext(pieces)
            return event_stream(self._events(body, head, prompts[0], first, pieces))
        asked = (
            self._whole(
                body, ids, sampling.model_copy(update={"seed": (sampling.seed + i) % 2**63}), f"{head['id']}-{i}"
            )
            for i, ids in enumerate(prompts)
        )
        made = await unless_left(request.receive, asyncio.gather(*asked))
        choices = [self._choice(body, ids, text, i) for i, (ids, text) in enumerate(zip(prompts, made, strict=True))]
        usage = _usage(sum(map(len, prompts)) // body.choices, made)
        return answer({**head, "choices": choices, "usage": usage})

    def _prompts(self, body: CompletionBody) -> list[list[int]]:
        given: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if not given or isinstance(given[0], int):
            given = [given]
        prompts = [self._tokenizer.encode(one) if isinstance(one, str) else one for one in given]
        return [known_ids(ids, "prompt", self._tokenizer.vocab_size) for ids in prompts]

    async def _whole(self, body: CompletionBody, ids: list[int], sampling: Sampling, request_id: str) -> Text:
        whole = Text()
        async with aclosing(self._run(body, ids, sampling, request_id)) as pieces:
            async for piece in pieces:
                _add(whole, piece)
        return whole

    async def _run(
        self, body: CompletionBody, ids: list[int], sampling: Sampling, request_id: str
    ) -> AsyncGenerator[Text, None]:
        """The completion in pieces, ended by a stop id, a stop string or its length."""
        stops, characters = StopStrings(body.stops()), codecs.getincrementaldecoder("utf-8")("replace")
        async with aclosing(self._engine.stream(ids, sampling, request_id, self._timeout)) as outputs:
            async for output in outputs:
                if output.finish_reason == "abort":
                    raise EnginePaused("the request was aborted on the server; send it again")
                ids = [i for i in output_ids(output.spans) if i not in sampling.stop_ids]
                # A character may span several tokens: an unfinished one waits for its other bytes, or for the end.
                text = characters.decode(self._tokenizer.decode_bytes(ids), final=bool(output.finish_reason))
                shown, stopped = stops.feed(text)
                if output.finish_reason and not stopped:
                    shown += stops.rest()
                yield _piece(output, shown, "stop" if stopped else output.finish_reason)
                if stopped:
                    return

    async def _events(
        self, body: CompletionBody, head: dict[str, Any], ids: list[int], first: Text, rest: AsyncGenerator[Text, None]
    ) -> AsyncGenerator[bytes, None]:
        whole, piece = Text(), first
        async with aclosing(rest):
            while piece is not None:
                choice = self._choice(body, [], piece, 0)
                _add(whole, piece)
                yield event({**head, "choices": [choice]})
                piece = await anext(rest, None)
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": _usage(len(ids), [whole])})
        yield b"data: [DONE]\n\n"

    def _choice(self, body: CompletionBody, prompt: list[int], text: Text, index: int) -> dict[str, Any]:
        echoed = self._tokenizer.decode(prompt) if body.echo else ""
        choice: dict[str, Any] = {
            "index": index,
            "text": echoed + text.text,
            "finish_reason": text.finish_reason or None,
            "logprobs": None,
        }
        if body.logprobs is not None:
            choice["logprobs"] = self._logprobs(prompt if body.echo else [], text)
        if body.return_token_ids:
            choice |= {"token_ids": text.ids, "prompt_token_ids": prompt, "weight_versions": text.versions}
        return choice

    def _logprobs(self, echoed: list[int], text: Text) -> dict[str, Any]:
        before: list[float | None] = [None, *(text.prompt_logprobs or [])] if echoed else []
        tokens = [self._tokenizer.piece(i) for i in [*echoed, *text.ids]]
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        tops = [{self._tokenizer.piece(i): p for i, p in top} for top in text.tops] or [None] * len(text.ids)
        return {
            "tokens": tokens,
            "token_logprobs": [*before, *text.logprobs],
            "top_logprobs": [None] * len(echoed) + tops,
            "text_offset": offsets,
        }


def _piece(output: Output, text: str, finish_reason: str) -> Text:
    return Text(
        text,
        output_ids(output.spans),
        output_logprobs(output.spans),
        list(output.top_logprobs),
        weight_versions(output.spans),
        output.prompt_logprobs,
        output.cached_tokens,
        finish_reason,
    )


def _add(whole: Text, piece: Text) -> None:
    moved = len(whole.ids)
    whole.versions += [{**run, "start": run["start"] + moved, "end": run["end"] + moved} for run in piece.versions]
    whole.text += piece.text
    whole.ids += piece.ids
    whole.logprobs += piece.logprobs
    whole.tops += piece.tops
    whole.prompt_logprobs = piece.prompt_logprobs
    whole.cached_tokens, whole.finish_reason = piece.cached_tokens, piece.finish_reason


def _usage(prompt: int, texts: list[Text]) -> dict[str, Any]:
    completion = sum(len(text.ids) for text in texts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": texts[0].cached_tokens},
    }
