"""Answers of the token API: ids, log-probabilities, which weights sampled what, and the replay bundle.

`weight_versions` tells which weights sampled ids[start:end] (GLM-5 report, section 4.1.2: the versions w_0..w_k of every
response are recorded). Replay arrays travel as base64 of a .npy file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from arcforge.core.trajectory import TokenSpan
from arcforge.serve.engine import Output
from arcforge.serve.token_schema import GenerateBody, VllmGenerateBody


def output_ids(spans: Iterable[TokenSpan]) -> list[int]:
    return [i for span in spans for i in span.ids]


def output_logprobs(spans: Iterable[TokenSpan]) -> list[float]:
    return [logprob for span in spans for logprob in span.logprobs]


def weight_versions(spans: Iterable[TokenSpan], first: int = 0) -> list[dict[str, int]]:
    """Half-open ranges of positions, one per run of tokens sampled by the same weights; `first` is that of the first token."""
    runs: list[dict[str, int]] = []
    position = first
    for span in spans:
        end = position + len(span.ids)
        if runs and runs[-1]["version"] == span.version:
            runs[-1]["end"] = end
        elif span.ids:
            runs.append({"version": span.version, "start": position, "end": end})
        position = end
    return runs


def npy(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def sglang(output: Output, body: GenerateBody, request_id: str, first: int = 0) -> dict[str, Any]:
    """The answer of /generate, or a piece of one whose first token is number `first`."""
    ids = output_ids(output.spans)
    logprobs = output_logprobs(output.spans)
    finish: dict[str, Any] | None = {"type": output.finish_reason} if output.finish_reason else None
    if finish and output.finish_reason == "stop" and ids:
        finish["matched"] = ids[-1]
    meta: dict[str, Any] = {
        "id": request_id,
        "finish_reason": finish,
        "weight_versions": weight_versions(output.spans, first),
        "weight_version": str(output.spans[-1].version) if output.spans else None,
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": first + len(ids),
        "cached_tokens": output.cached_tokens,
    }
    if body.return_logprob:
        meta["output_token_logprobs"] = [[p, i, None] for p, i in zip(logprobs, ids, strict=True)]
    if body.top_logprobs_num:
        meta["output_top_logprobs"] = [[[p, i, None] for i, p in top] for top in output.top_logprobs]
    if output.prompt_logprobs is not None:
        start = body.logprob_start_len
        told = [(None, body.input_ids[0]), *zip(output.prompt_logprobs, body.input_ids[1:], strict=True)]
        meta["input_token_logprobs"] = [[p, i, None] for p, i in told[start:]]
    meta.update(replay_fields(output, body.return_routed_experts, body.return_indexer_topk))
    return {"output_ids": ids, "meta_info": meta}


def vllm_choice(output: Output, body: VllmGenerateBody, index: int, first: int = 0) -> dict[str, Any]:
    """One of `choices` of /inference/v1/generate, or a piece of one whose first token is number `first`."""
    ids = output_ids(output.spans)
    stopped = output.finish_reason == "stop" and bool(ids)
    choice: dict[str, Any] = {
        "index": index,
        "token_ids": ids,
        "finish_reason": output.finish_reason or None,
        "stop_reason": ids[-1] if stopped else None,
        "logprobs": None,
        "weight_versions": weight_versions(output.spans, first),
    }
    if body.sampling_params.logprobs is not None:
        tops: Sequence[list[tuple[int, float]]] = output.top_logprobs or [[] for _ in ids]
        told = zip(ids, output_logprobs(output.spans), tops, strict=True)
        choice["logprobs"] = {"content": [_vllm_logprob(*row) for row in told]}
    choice.update(replay_fields(output, body.return_routed_experts, body.return_indexer_topk))
    return choice


def replay_fields(output: Output, experts: bool, selected: bool) -> dict[str, str]:
    """routed_experts (tokens - 1, MoE layers, experts per token) and indexer_topk (tokens - 1, layers, top-k; -1: none)."""
    if output.replay is None or not output.finish_reason:
        return {}
    fields = {"routed_experts": output.replay.experts} if experts else {}
    return {
        name: npy(array)
        for name, array in (fields | ({"indexer_topk": output.replay.selected} if selected else {})).items()
    }


def _vllm_logprob(token: int, logprob: float, top: list[tuple[int, float]]) -> dict[str, Any]:
    """Clients of two generations: one reads token_id, the other the number in `token`."""
    entry = {"token": f"token_id:{token}", "token_id": token, "logprob": logprob, "bytes": None}
    rank = next((place + 1 for place, (other, _) in enumerate(top) if other == token), None)
    tops = [
        {"token": f"token_id:{i}", "token_id": i, "logprob": p, "rank": place + 1} for place, (i, p) in enumerate(top)
    ]
    return {**entry, "rank": rank, "top_logprobs": tops}
