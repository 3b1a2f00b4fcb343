"""Clients of our server's token API: sampling and scoring, rewards, and control of one engine or of many.

POST /generate /score /reward      token ids in, token ids or numbers out (SGLang's names)
POST /update_weights /pause /resume, GET /health
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from arcforge.clients.http import JsonClient, malformed
from arcforge.clients.token_client import (
    HEALTH_TIMEOUT,
    MALFORMED,
    FleetControl,
    PauseMode,
    Run,
    TokenClient,
    common_sampling,
    model_spans,
    reported_runs,
)
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan


class HttpTokenEngine(TokenClient):
    """Our server. It tells the weight version of every token."""

    path = "/generate"

    def _body(self, prompt_ids: list[int], sampling: Sampling, request_id: str) -> dict[str, Any]:
        salt = {"cache_salt": sampling.cache_salt} if sampling.cache_salt else {}
        params = {**common_sampling(sampling), "max_new_tokens": sampling.max_tokens, "seed": sampling.seed}
        return {
            "input_ids": prompt_ids,
            "sampling_params": params,
            "rid": request_id,
            "return_logprob": True,
            **salt,
        }

    def _answer(self, answer: Any) -> tuple[list[TokenSpan], str]:
        meta = answer["meta_info"]
        pairs = meta.get("output_token_logprobs", [])
        ids = answer.get("output_ids", [pair[1] for pair in pairs])
        if [pair[1] for pair in pairs] != ids:
            raise ValueError("output_token_logprobs are not those of output_ids")
        spans = model_spans(ids, [float(pair[0]) for pair in pairs], self._runs(meta, len(ids)))
        return spans, str(meta["finish_reason"]["type"])

    def _runs(self, meta: dict[str, Any], count: int) -> list[Run]:
        """Which weights sampled the `count` tokens."""
        return reported_runs(meta["weight_versions"], lambda version: version)

    async def score_batch(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """`score` of several sequences in one request."""

        def read(answer: Any) -> list[list[float]]:
            logprobs = [[float(value) for value in row] for row in answer["logprobs"]]
            if [len(row) for row in logprobs] != [len(ids) - 1 for ids in batch]:
                raise ValueError("not one log-probability for each id after the first")
            return logprobs

        return await self._ask("/score", {"batch": [list(ids) for ids in batch]}, read)


class EngineFleet:
    """Several engines as one `TokenEngine`: a rollout stays on the engine that its id hashes to, and so on its prefix
    (GLM-5 report, section 4.1.2). client: makes the client of one server from its address and the timeout."""

    def __init__(
        self,
        base_urls: Sequence[str],
        timeout: float = 600.0,
        client: Callable[[str, float], TokenClient] = HttpTokenEngine,
    ) -> None:
        self._engines = [client(url, timeout) for url in base_urls]

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        return await self._of(session).generate(prompt_ids, sampling, session)

    async def score(self, ids: Sequence[int]) -> list[float]:
        return await self._engines[0].score(ids)

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()

    def _of(self, session: str) -> TokenClient:
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
        except MALFORMED as error:
            raise malformed(f"{self._http.base_url}/reward", error) from None

    async def close(self) -> None:
        await self._http.close()


class EngineControl(FleetControl):
    """Control of our servers. An update falls between two steps of the engine, so nothing is paused for it."""

    async def _update(self, engine: JsonClient, folder: str, version: int) -> None:
        await engine.post("/update_weights", {"folder": folder, "version": version})

    async def _pause(self, engine: JsonClient, mode: PauseMode) -> None:
        await engine.post("/pause", {"mode": mode})

    async def _resume(self, engine: JsonClient) -> None:
        await engine.post("/resume", {})

    async def _health(self, engine: JsonClient) -> Any:
        return await engine.get("/health", HEALTH_TIMEOUT)
