"""vLLM servers as engines of the RL system: its token API and its control endpoints.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs

--enable-scale-out opens POST /inference/v1/generate (403 without it). VLLM_SERVER_DEV_MODE=1 opens everything that is used for
control (404 without it); those endpoints have no authentication, so keep them off public networks. processed_logprobs makes
log-probabilities those of the sampled distribution; vLLM's default are those before temperature and truncation, which are wrong
for importance ratios wherever the temperature is not 1.

vLLM's weight transfer endpoints (/init_weight_transfer_engine, /start_weight_update, /update_weights, /finish_weight_update)
move tensors between GPUs and know no folder. A folder is loaded by the worker method `reload_weights` through /collective_rpc,
which is what is used here; every worker reads the folder, so all machines must see it under the same path. Weights then carry
the label that /update_weight_version gives them, and answers tell `weight_versions` of their tokens (vLLM 0.33 does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from arcforge.clients.http import JsonClient, Refused
from arcforge.clients.token_client import (
    HEALTH_TIMEOUT,
    PauseMode,
    PausingControl,
    TokenClient,
    common_sampling,
    model_spans,
    numbered,
    reported_runs,
)
from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan

NO_LOGPROB = -9999.0
"""What vLLM writes where it has none, or not a number."""


class VllmEngine(TokenClient):
    """One vLLM server. Only the stop ids that are asked for end an answer.

    Versions come from the server's labels. They are exact because `VllmControl` loads weights and changes the label while nothing
    is sampled. base_version: what weights are called that no update has named.
    """

    path = "/inference/v1/generate"

    def __init__(self, base_url: str, timeout: float = 600.0, base_version: int = 0) -> None:
        super().__init__(base_url, timeout)
        self._base_version = base_version

    def _body(self, prompt_ids: list[int], sampling: Sampling, request_id: str) -> dict[str, Any]:
        params = {
            **common_sampling(sampling),
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "ignore_eos": True,
            "logprobs": 0,
        }
        salt = {"cache_salt": sampling.cache_salt} if sampling.cache_salt else {}
        return {"token_ids": prompt_ids, "sampling_params": params, "request_id": request_id, **salt}

    def _answer(self, answer: Any) -> tuple[list[TokenSpan], str]:
        choice = answer["choices"][0]
        ids = choice["token_ids"] or []
        entries = choice["logprobs"]["content"] if ids else []
        if [entry["token_id"] for entry in entries] != ids:
            raise ValueError("logprobs are not those of token_ids")
        if ids and choice.get("weight_versions") is None:
            raise ValueError("it tells no weight_versions; a later vLLM is needed")
        runs = reported_runs(choice["weight_versions"] if ids else [], lambda v: numbered(v, self._base_version))
        return model_spans(ids, [_logprob(entry) for entry in entries], runs), str(choice["finish_reason"])

    async def score_batch(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One request for each sequence; vLLM samples a token more, which is dropped."""
        return await asyncio.gather(*(self._score(list(ids)) for ids in batch))

    async def _score(self, ids: list[int]) -> list[float]:
        params = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}

        def read(answer: Any) -> list[float]:
            told = answer["prompt_logprobs"]
            if len(told) != len(ids):
                raise ValueError("prompt_logprobs are not those of token_ids")
            return [_logprob(row[str(i)]) for row, i in zip(told[1:], ids[1:], strict=True)]

        return await self._ask(self.path, {"token_ids": ids, "sampling_params": params}, read)


class VllmControl(PausingControl):
    """Control of vLLM servers. After an update the keys and values of running requests are computed anew from their tokens."""

    async def _load(self, engine: JsonClient, folder: str, version: int) -> None:
        await _tell(engine, "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        reset = await _tell(engine, "/reset_prefix_cache?reset_running_requests=true")
        if not reset["success"]:
            raise EngineError(f"{engine.base_url}/reset_prefix_cache: keys and values of older weights are still there")
        await _tell(engine, "/update_weight_version", {"new_version": str(version)})

    async def _pause(self, engine: JsonClient, mode: PauseMode) -> None:
        await _tell(engine, f"/pause?mode={mode}")

    async def _resume(self, engine: JsonClient) -> None:
        await _tell(engine, "/resume")

    async def _health(self, engine: JsonClient) -> Any:
        await engine.get("/health", HEALTH_TIMEOUT)  # empty, but for its status
        told = await engine.get("/weight_info", HEALTH_TIMEOUT)
        label = told["weight_version"]
        return {"version": None if label == "default" else int(label)}


async def _tell(engine: JsonClient, path: str, body: Mapping[str, Any] | None = None) -> Any:
    try:
        return await engine.post(path, body)
    except Refused as error:
        if error.status != 404:
            raise
        raise EngineError(f"{error}; start vLLM with VLLM_SERVER_DEV_MODE=1") from None


def _logprob(entry: Mapping[str, Any]) -> float:
    value = float(entry["logprob"])
    if value <= NO_LOGPROB:
        raise ValueError("a token without a log-probability")
    return value
