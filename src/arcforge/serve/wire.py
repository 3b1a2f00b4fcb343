"""The token API's JSON: reading requests (UserError in one line for a bad one) and writing answers.

    POST /generate {"input_ids": [..], "sampling_params": {..}, "rid": "..", "return_logprob": true}
      -> {"output_ids": [..], "meta_info": {"id", "finish_reason": {"type"}, "prompt_tokens", "completion_tokens",
          "cached_tokens", "output_token_logprobs": [[logprob, id, null]],
          "weight_versions": [{"version", "start", "end"}]}}

The names are SGLang's. `weight_versions` tells which weights sampled output_ids[start:end] (GLM-5 report, section
4.1.2: the versions w_0..w_k of every response are recorded).
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.serve.engine import Output
from arcforge.serve.loop import EngineLoop

MAX_NEW_TOKENS = 1 << 20
DEFAULT_NEW_TOKENS = 256

# What SGLang clients also send, with the only value that means what this server does.
NEUTRAL = {
    "top_k": -1,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
    "n": 1,
}
IRRELEVANT = {"skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim"}


class TooLarge(UserError):
    """A request body over the limit; the server answers 413."""


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object, read no further than `max_bytes`."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"the request body is larger than {max_bytes} bytes")
        chunks.append(chunk)
    try:
        body = json.loads(b"".join(chunks))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the request body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise UserError("the request body is not a JSON object")
    return body


async def abort_when_left(request: Request, engine: EngineLoop, request_id: str) -> None:
    """Waits for the client to hang up, then ends its request: nobody reads the answer. Cancel it when answered."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    with contextlib.suppress(EngineError):
        await engine.abort(request_id)


def answer(content: Any, status: int = 200) -> Response:
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status_code=status, media_type="application/json")


def problem(message: str, kind: str, status: int) -> Response:
    return answer({"error": {"message": message, "type": kind, "code": status}}, status)


def token_ids(value: Any, name: str, vocab_size: int) -> list[int]:
    """A non-empty list of ids in [0, vocab_size)."""
    if not isinstance(value, list) or not value:
        raise UserError(f"{name}: a non-empty list of token ids is needed")
    if any(type(i) is not int for i in value):
        raise UserError(f"{name}: every token id is an integer")
    if min(value) < 0 or max(value) >= vocab_size:
        raise UserError(f"{name}: a token id is outside 0..{vocab_size - 1}")
    return value


def token_batch(value: Any, name: str, vocab_size: int) -> list[list[int]]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{name}: a non-empty list of lists of token ids is needed")
    return [token_ids(ids, f"{name}[{i}]", vocab_size) for i, ids in enumerate(value)]


def number(values: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """values[name] in [low, high]; absent or null is the default."""
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{name}: a number is needed, not {value!r:.40}")
    if not low <= value <= high:
        raise UserError(f"{name}: {value!r:.40} is not in {low:g}..{high:g}")
    return value


def integer(values: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = number(values, name, default, low, high)
    if value != int(value):
        raise UserError(f"{name}: a whole number is needed, not {value:g}")
    return int(value)


def seed(values: Mapping[str, Any]) -> int:
    """The seed asked for; without one, a fresh one for each request."""
    if values.get("seed") is None:
        return secrets.randbits(31)
    return integer(values, "seed", 0, 0, 2**63 - 1)


def text(values: Mapping[str, Any], name: str, default: str = "") -> str:
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise UserError(f"{name}: a string is needed")
    return value


def refuse(values: Mapping[str, Any], neutral: Mapping[str, Any]) -> None:
    """Options that would change the answer but are not implemented are refused, not passed over in silence."""
    for name, same in neutral.items():
        if values.get(name) not in (None, same):
            raise UserError(f"{name}: {values[name]!r:.40} is not supported here; leave it out")


def sampling(params: Any, default_stops: Sequence[int], vocab_size: int) -> Sampling:
    """`sampling_params` of /generate. Without stop_token_ids the model's own end-of-turn ids stop it; [] means none."""
    if not isinstance(params, dict):
        raise UserError("sampling_params: an object is needed")
    known = {"max_new_tokens", "temperature", "top_p", "seed", "stop_token_ids", *NEUTRAL, *IRRELEVANT}
    unknown = sorted(params.keys() - known)
    if unknown:
        raise UserError(f"sampling_params: unknown key {unknown[0]}")
    refuse(params, NEUTRAL)
    stops = params.get("stop_token_ids")
    return Sampling(
        max_tokens=integer(params, "max_new_tokens", DEFAULT_NEW_TOKENS, 1, MAX_NEW_TOKENS),
        temperature=number(params, "temperature", 1.0, 0.0, 100.0),
        top_p=number(params, "top_p", 1.0, 1e-6, 1.0),
        seed=seed(params),
        stop_ids=tuple(
            default_stops if stops is None else token_ids(stops, "stop_token_ids", vocab_size) if stops else ()
        ),
    )


def generated(output: Output, request_id: str, logprobs: bool) -> dict[str, Any]:
    """The answer of /generate."""
    ids = output_ids(output.spans)
    finish: dict[str, Any] = {"type": output.finish_reason}
    if output.finish_reason == "stop" and ids:
        finish["matched"] = ids[-1]
    meta = {
        "id": request_id,
        "finish_reason": finish,
        "weight_versions": weight_versions(output.spans),
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": len(ids),
        "cached_tokens": output.cached_tokens,
    }
    if logprobs:
        meta["output_token_logprobs"] = [[p, i, None] for span in output.spans for p, i in zip(span.logprobs, span.ids)]
    return {"output_ids": ids, "meta_info": meta}


def output_ids(spans: Iterable[TokenSpan]) -> list[int]:
    return [i for span in spans for i in span.ids]


def weight_versions(spans: Iterable[TokenSpan]) -> list[dict[str, int]]:
    """Half-open ranges of output positions, one per run of tokens sampled by the same weights."""
    runs: list[dict[str, int]] = []
    position = 0
    for span in spans:
        end = position + len(span.ids)
        if runs and runs[-1]["version"] == span.version:
            runs[-1]["end"] = end
        elif span.ids:
            runs.append({"version": span.version, "start": position, "end": end})
        position = end
    return runs
