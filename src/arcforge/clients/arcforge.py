"""Clients of our server's token API: sampling and scoring, rewards, and control of one engine or of many.

POST /generate /score /reward      token ids in, token ids or numbers out (SGLang's names)
POST /update_weights /pause /resume, GET /health
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from arcforge.clients.http import JsonClient, malformed, session_header
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan

PauseMode = Literal["keep", "wait", "abort"]
HEALTH_TIMEOUT = 5.0  # seconds
_MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)  # pydantic's ValidationError is a ValueError


class HttpTokenEngine:
    """A `TokenEngine` over HTTP. timeout: seconds for one answer.

    Every request carries its rollout id in X-Session-ID, so that a router keeps a rollout on the engine that holds its
    prefix (GLM-5 report, section 4.1.2). EngineError: the engine failed or answered nonsense. RolloutTimeout: no answer.
    """

    def __init__(self, base_url: str, timeout: float = 600.0) -> None:
        self._http = JsonClient(base_url, timeout)
        self._run, self._count = uuid.uuid4().hex[:12], itertools.count()

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        """(model spans in order, split where the weights changed; "stop" | "length" | "abort")."""
        body = {
            "input_ids": list(prompt_ids),
            "sampling_params": {
                "max_new_tokens": sampling.max_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
                "stop_token_ids": list(sampling.stop_ids),
            },
            "rid": f"{session or 'request'}-{self._run}-{next(self._count)}",
            "return_logprob": True,
        }
        answer = await self._http.post("/generate", body, session_header(session))
        try:
            return _spans(answer["output_ids"], answer["meta_info"]), str(answer["meta_info"]["finish_reason"]["type"])
        except _MALFORMED as error:
            raise malformed(f"{self._http.base_url}/generate", error) from None

    async def score(self, ids: Sequence[int]) -> list[float]:
        """Log-probability of ids[1:] under the current weights, len(ids) - 1 floats."""
        return (await self.score_batch([ids]))[0]

    async def score_batch(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """`score` of several sequences in one request."""
        answer = await self._http.post("/score", {"batch": [list(ids) for ids in batch]})
        try:
            logprobs = [[float(value) for value in row] for row in answer["logprobs"]]
            if [len(row) for row in logprobs] != [len(ids) - 1 for ids in batch]:
                raise ValueError("not one log-probability for each id after the first")
            return logprobs
        except _MALFORMED as error:
            raise malformed(f"{self._http.base_url}/score", error) from None

    async def close(self) -> None:
        await self._http.close()


class EngineFleet:
    """Several engines as one `TokenEngine`: a rollout stays on the engine that its id hashes to, and so on its prefix
    (GLM-5 report, section 4.1.2)."""

    def __init__(self, base_urls: Sequence[str], timeout: float = 600.0) -> None:
        self._engines = [HttpTokenEngine(url, timeout) for url in base_urls]

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        return await self._of(session).generate(prompt_ids, sampling, session)

    async def score(self, ids: Sequence[int]) -> list[float]:
        return await self._engines[0].score(ids)

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()

    def _of(self, session: str) -> HttpTokenEngine:
        return self._engines[zlib.crc32(session.encode()) % len(self._engines)]


class RewardClient:
    """Rewards of token sequences from a served checkpoint with a scalar head (outcome reward model)."""

    def __init__(self, base_url: str, timeout: float = 120.0) -> None:
        self._http = JsonClient(base_url, timeout)

    async def rewards(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """One float per sequence. EngineError also when the served checkpoint has no scalar head."""
        answer = await self._http.post("/reward", {"ids": [list(ids) for ids in batch]})
        try:
            rewards = [float(value) for value in answer["rewards"]]
            if len(rewards) != len(batch):
                raise ValueError(f"{len(rewards)} rewards for {len(batch)} sequences")
            return rewards
        except _MALFORMED as error:
            raise malformed(f"{self._http.base_url}/reward", error) from None

    async def close(self) -> None:
        await self._http.close()


class EngineControl:
    """Control of every engine of a fleet. Public routers do not broadcast control calls, so each engine is told itself.

    A call returns when all engines have answered; EngineError or RolloutTimeout names the first one that did not do it.
    """

    def __init__(self, base_urls: Sequence[str], timeout: float = 600.0) -> None:
        self._engines = [JsonClient(url, timeout) for url in base_urls]

    async def update_weights(self, folder: Path | str, version: int) -> None:
        """Load a checkpoint folder; running requests go on under the new weights."""
        body = {"folder": str(folder), "version": version}
        await self._all(lambda engine: engine.post("/update_weights", body))

    async def pause(self, mode: PauseMode = "keep") -> None:
        """keep: freeze running requests and queue new ones; wait: finish running ones; abort: end them."""
        await self._all(lambda engine: engine.post("/pause", {"mode": mode}))

    async def resume(self) -> None:
        await self._all(lambda engine: engine.post("/resume", {}))

    async def health(self) -> list[dict[str, Any] | None]:
        """Per engine its /health, or None for one that is unreachable, silent or says that it is unwell."""
        calls = (engine.get("/health", HEALTH_TIMEOUT) for engine in self._engines)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [answer if isinstance(answer, dict) else None for answer in answers]

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()

    async def _all(self, call: Callable[[JsonClient], Awaitable[Any]]) -> None:
        answers = await asyncio.gather(*(call(engine) for engine in self._engines), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


def _spans(ids: list[int], meta: dict[str, Any]) -> list[TokenSpan]:
    """Model spans from output ids, their log-probs and the ranges of weight versions. ValueError when they disagree."""
    pairs = meta["output_token_logprobs"]
    if [pair[1] for pair in pairs] != ids:
        raise ValueError("output_token_logprobs are not those of output_ids")
    spans, position = [], 0
    for run in meta["weight_versions"]:
        start, end = run["start"], run["end"]
        if start != position or end <= start:
            raise ValueError("weight_versions do not follow each other")
        logprobs = [float(pair[0]) for pair in pairs[start:end]]
        span = TokenSpan(ids=ids[start:end], source="model", logprobs=logprobs, version=run["version"], trained=True)
        spans.append(span)
        position = end
    if position != len(ids):
        raise ValueError("weight_versions do not cover output_ids")
    return spans
