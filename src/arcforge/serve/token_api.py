"""Token ids in, token ids out: /generate (SGLang's shape), /inference/v1/generate (vLLM's shape), /score and /reward.

    POST /generate {"input_ids": [..], "sampling_params": {..}, "rid": "..", "return_logprob": true}
      -> {"output_ids": [..], "meta_info": {"id", "finish_reason": {"type"}, "prompt_tokens", "completion_tokens",
          "cached_tokens", "output_token_logprobs": [[logprob, id, null]],
          "weight_versions": [{"version", "start", "end"}]}}

With "max_new_tokens": 0 and "logprob_start_len": 0 (vLLM's shape: "max_tokens": 0, "prompt_logprobs": 0) nothing is sampled and
the log-probabilities of the supplied ids come back.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.serve.engine import Output
from arcforge.serve.http import TooLarge, answer, event, event_stream, problem, unless_left
from arcforge.serve.limits import Limits
from arcforge.serve.loop import EngineLoop
from arcforge.serve.record import EngineRecord
from arcforge.serve.token_answers import output_ids, sglang, vllm_choice
from arcforge.serve.token_schema import GenerateBody, RewardBody, ScoreBody, VllmGenerateBody, known_ids


class TokenApi:
    """The routes of one engine. record: of what it consumed and produced, None to keep none."""

    def __init__(
        self, engine: EngineLoop, tokenizer: Tokenizer, limits: Limits, record: EngineRecord | None = None
    ) -> None:
        self._engine, self._limits, self._record = engine, limits, record
        self._vocab_size, self._stop_ids = tokenizer.vocab_size, tokenizer.stop_ids

    def router(self) -> APIRouter:
        router = APIRouter(tags=["tokens"])
        router.post("/generate")(self.generate)
        router.post("/inference/v1/generate")(self.vllm_generate)
        router.post("/score")(self.score)
        router.post("/reward")(self.reward)
        return router

    async def generate(self, body: GenerateBody, request: Request) -> Response:
        ids, sampling = self._asked(body.input_ids, "input_ids", body.sampling(self._stop_ids))
        rid = body.rid or uuid.uuid4().hex
        n = body.sampling_params.n
        if body.stream:
            return await self._streamed(ids, sampling, rid, n, lambda piece, first: sglang(piece, body, rid, first))
        outputs = await unless_left(request.receive, self._choices(ids, sampling, rid, n))
        answers = [sglang(output, body, rid) for output in outputs]
        return answer(answers[0] if len(answers) == 1 else answers)

    async def vllm_generate(self, body: VllmGenerateBody, request: Request) -> Response:
        ids, sampling = self._asked(body.token_ids, "token_ids", body.sampling(self._stop_ids))
        rid = body.request_id or uuid.uuid4().hex
        n = body.sampling_params.n
        if body.stream:

            def content(piece: Output, first: int) -> dict[str, Any]:
                return {"request_id": rid, "choices": [vllm_choice(piece, body, 0, first)]}

            return await self._streamed(ids, sampling, rid, n, content)
        outputs = await unless_left(request.receive, self._choices(ids, sampling, rid, n))
        whole = {"request_id": rid, "choices": [vllm_choice(o, body, i) for i, o in enumerate(outputs)]}
        whole["usage"] = _usage(len(ids), sum(len(output_ids(o.spans)) for o in outputs), outputs[0].cached_tokens)
        if outputs[0].prompt_logprobs is not None:
            told = zip(ids[1:], outputs[0].prompt_logprobs, strict=True)
            whole["prompt_logprobs"] = [None, *({str(i): {"logprob": p}} for i, p in told)]
        if body.return_token_ids:
            whole["prompt_token_ids"] = ids
        return answer(whole)

    async def score(self, body: ScoreBody) -> Response:
        """Log-probabilities of ids[1:] of each sequence, by the training form of the model."""
        if (body.input_ids is None) == (body.batch is None):
            raise UserError("one of input_ids and batch is needed")
        batch = self._batch([body.input_ids], "input_ids") if body.input_ids is not None else []
        batch = self._batch(body.batch, "batch") if body.batch is not None else batch
        logprobs = await self._engine.score(batch, self._limits.request_timeout)
        return answer({"logprobs": logprobs if body.input_ids is None else logprobs[0]})

    async def reward(self, body: RewardBody) -> Response:
        """Scalar rewards of whole sequences; 409 for a checkpoint without a scalar head."""
        batch = self._batch(body.ids, "ids")
        try:
            rewards = await self._engine.reward(batch, self._limits.request_timeout)
        except UserError as error:
            return problem(str(error), "no_reward_model", 409)
        return answer({"rewards": rewards})

    def _asked(self, ids: Sequence[int], name: str, sampling: Sampling) -> tuple[list[int], Sampling]:
        known_ids([*sampling.stop_ids, 0], "stop_token_ids", self._vocab_size)
        return known_ids(ids, name, self._vocab_size), sampling

    async def _choices(self, ids: list[int], sampling: Sampling, rid: str, n: int) -> list[Output]:
        """n answers to one prompt, which is computed once; each has a seed of its own."""
        seeds = [(sampling.seed + i) % 2**63 for i in range(n)]
        return await asyncio.gather(
            *(
                self._choice(ids, sampling.model_copy(update={"seed": seed}), rid if n == 1 else f"{rid}-{i}")
                for i, seed in enumerate(seeds)
            )
        )

    async def _choice(self, ids: list[int], sampling: Sampling, rid: str) -> Output:
        output = await self._engine.generate(ids, sampling, rid, self._limits.request_timeout)
        if self._record is not None:
            self._record.add(rid, ids, output.spans, output.finish_reason)
        return output

    async def _streamed(
        self, ids: list[int], sampling: Sampling, rid: str, n: int, content: Callable[[Output, int], Any]
    ) -> Response:
        """An event per piece, made by `content(piece, number of its first token)`, and [DONE]. The first piece is waited for: a
        request the engine refuses is answered by a status, not by a broken stream."""
        if n > 1:
            raise UserError("n: one choice at a time where they are streamed")
        pieces = self._engine.stream(ids, sampling, rid, self._limits.request_timeout)
        if self._record is not None:
            pieces = _recorded(pieces, self._record, rid, ids)
        return event_stream(_events(await anext(pieces), pieces, content))

    def _batch(self, batch: Sequence[Sequence[int]], name: str) -> list[list[int]]:
        if not batch:
            raise UserError(f"{name}: a non-empty list of lists of token ids is needed")
        if len(batch) > self._limits.max_batch:
            raise TooLarge(f"{name}: {len(batch)} sequences; at most {self._limits.max_batch} in one request")
        return [known_ids(ids, f"{name}[{i}]", self._vocab_size) for i, ids in enumerate(batch)]


async def _recorded(
    pieces: AsyncGenerator[Output, None], record: EngineRecord, rid: str, ids: list[int]
) -> AsyncGenerator[Output, None]:
    spans: list[TokenSpan] = []
    async with aclosing(pieces):
        async for piece in pieces:
            spans += piece.spans
            if piece.finish_reason:
                record.add(rid, ids, spans, piece.finish_reason)
            yield piece


async def _events(
    piece: Output | None, rest: AsyncGenerator[Output, None], content: Callable[[Output, int], Any]
) -> AsyncGenerator[bytes, None]:
    first = 0
    async with aclosing(rest):
        while piece is not None:
            yield event(content(piece, first))
            first += len(output_ids(piece.spans))
            piece = await anext(rest, None)
    yield b"data: [DONE]\n\n"


def _usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
