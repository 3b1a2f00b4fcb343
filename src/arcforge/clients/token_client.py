"""What the clients of token servers share: one server as a `TokenEngine`, and control of every server of a fleet.

The servers are ours (`clients.arcforge`), vLLM (`clients.vllm`) and SGLang (`clients.sglang`); each client says in small methods
what its server calls things. `clients.engines` makes the pair that a rollout system needs.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from arcforge.clients.http import JsonClient, malformed, session_header
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan

PauseMode = Literal["keep", "wait", "abort"]
HEALTH_TIMEOUT = 5.0  # seconds
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)  # pydantic's ValidationError is a ValueError
T = TypeVar("T")


@runtime_checkable
class Control(Protocol):
    """Control of every engine of a fleet, as the RL system uses it. EngineError or RolloutTimeout: an engine did not do it."""

    async def pause(self, mode: PauseMode = "keep") -> None:
        """keep: running requests stop and go on after `resume`; wait: they finish first; abort: they end now."""
        ...

    async def update_weights(self, folder: Path | str, version: int) -> None:
        """Load a checkpoint folder; running requests go on under the new weights, and their spans tell where."""
        ...

    async def resume(self) -> None: ...

    async def health(self) -> list[dict[str, Any] | None]:
        """Per engine what it tells of itself, its weights' "version" at least; None for one that is not well."""
        ...

    async def close(self) -> None: ...


class Run(NamedTuple):
    """Tokens [start, end) of an answer were sampled by weights `version`."""

    version: Any
    start: int
    end: int


class TokenClient(ABC):
    """One server as a `TokenEngine`. timeout: seconds for one answer.

    Every request carries its rollout id in X-Session-ID, so that a router keeps a rollout on the engine that holds its
    prefix (GLM-5 report, section 4.1.2). EngineError: the engine failed or answered nonsense. RolloutTimeout: no answer.
    """

    path: str
    """Where token ids are sampled."""

    def __init__(self, base_url: str, timeout: float = 600.0) -> None:
        self._http = JsonClient(base_url, timeout)
        self._run, self._count = uuid.uuid4().hex[:12], itertools.count()

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        """(model spans in order, split where the weights changed; "stop" | "length" | "abort")."""
        # `rl.verify` and the router read the session from this form.
        request_id = f"{session or 'request'}-{self._run}-{next(self._count)}"
        body = self._body(list(prompt_ids), sampling, request_id)
        return await self._ask(self.path, body, self._answer, self._headers(session))

    async def score(self, ids: Sequence[int]) -> list[float]:
        """Log-probability of ids[1:] under the current weights, len(ids) - 1 floats."""
        return (await self.score_batch([ids]))[0]

    @abstractmethod
    async def score_batch(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """`score` of several sequences."""

    async def close(self) -> None:
        await self._http.close()

    @abstractmethod
    def _body(self, prompt_ids: list[int], sampling: Sampling, request_id: str) -> dict[str, Any]: ...

    @abstractmethod
    def _answer(self, answer: Any) -> tuple[list[TokenSpan], str]:
        """What `generate` returns, read from the server's JSON. One of MALFORMED when that is not what it should be."""

    def _headers(self, session: str) -> dict[str, str]:
        return session_header(session)

    async def _ask(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], headers: Mapping[str, str] | None = None
    ) -> T:
        answer = await self._http.post(path, body, headers)
        try:
            return read(answer)
        except MALFORMED as error:
            raise malformed(f"{self._http.base_url}{path}", error) from None


class FleetControl(ABC):
    """`Control` over HTTP. Public routers do not broadcast control calls, so each engine is told itself.

    A call returns when all engines have answered; EngineError or RolloutTimeout names the first one that did not do it.
    """

    def __init__(self, base_urls: Sequence[str], timeout: float = 600.0) -> None:
        self._engines = [JsonClient(url, timeout) for url in base_urls]

    async def update_weights(self, folder: Path | str, version: int) -> None:
        """Load a checkpoint folder; running requests go on under the new weights."""
        await self._all(lambda engine: self._update(engine, str(folder), version))

    async def pause(self, mode: PauseMode = "keep") -> None:
        """keep: running requests stop and go on after `resume`; wait: they finish first; abort: they end now."""
        await self._all(lambda engine: self._pause(engine, mode))

    async def resume(self) -> None:
        await self._all(self._resume)

    async def health(self) -> list[dict[str, Any] | None]:
        """Per engine what it tells of itself, or None for one that is unreachable, silent or says that it is unwell."""
        answers = await asyncio.gather(*(self._health(engine) for engine in self._engines), return_exceptions=True)
        return [answer if isinstance(answer, dict) else None for answer in answers]

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()

    @abstractmethod
    async def _update(self, engine: JsonClient, folder: str, version: int) -> None: ...
    @abstractmethod
    async def _pause(self, engine: JsonClient, mode: PauseMode) -> None: ...
    @abstractmethod
    async def _resume(self, engine: JsonClient) -> None: ...
    @abstractmethod
    async def _health(self, engine: JsonClient) -> Any: ...

    async def _all(self, call: Callable[[JsonClient], Awaitable[Any]]) -> None:
        answers = await asyncio.gather(*(call(engine) for engine in self._engines), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


class PausingControl(FleetControl):
    """Control of servers whose loading of weights does not itself stop sampling.

    Each engine is paused around its update, unless the caller holds the fleet paused. One whose update failed stays paused:
    nobody knows which weights it holds, so it must not sample.
    """

    def __init__(self, base_urls: Sequence[str], timeout: float = 600.0) -> None:
        super().__init__(base_urls, timeout)
        self._held = False

    async def pause(self, mode: PauseMode = "keep") -> None:
        await super().pause(mode)
        self._held = True

    async def resume(self) -> None:
        await super().resume()
        self._held = False

    async def _update(self, engine: JsonClient, folder: str, version: int) -> None:
        held = self._held
        if not held:
            await self._pause(engine, "keep")
        await self._load(engine, folder, version)
        if not held:
            await self._resume(engine)

    @abstractmethod
    async def _load(self, engine: JsonClient, folder: str, version: int) -> None:
        """The paused engine's weights become those of `folder`, and no cached prefix of older ones starts a request."""


def common_sampling(sampling: Sampling) -> dict[str, Any]:
    """The fields that all three servers call the same. What changes nothing is left out."""
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_token_ids": list(sampling.stop_ids),
    }
    if sampling.top_k:
        fields["top_k"] = sampling.top_k
    if sampling.min_p:
        fields["min_p"] = sampling.min_p
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return fields


def model_spans(ids: Sequence[int], logprobs: Sequence[float], runs: Iterable[Run]) -> list[TokenSpan]:
    """Model spans from sampled ids, their log-probabilities and runs of weight versions. ValueError when they disagree."""
    if len(logprobs) != len(ids):
        raise ValueError(f"{len(logprobs)} log-probabilities of {len(ids)} ids")
    spans, position = [], 0
    for version, start, end in runs:
        if start != position or end <= start:
            raise ValueError("weight_versions do not follow each other")
        span = {"ids": list(ids[start:end]), "logprobs": list(logprobs[start:end]), "version": version}
        spans.append(TokenSpan(source="model", trained=True, **span))
        position = end
    if position != len(ids):
        raise ValueError("weight_versions do not cover the output ids")
    return spans


def reported_runs(told: Iterable[Mapping[str, Any]], version_of: Callable[[Any], Any]) -> list[Run]:
    """Runs from a server's `weight_versions`: [{"version", "start", "end"}]."""
    return [Run(version_of(run["version"]), run["start"], run["end"]) for run in told]


def numbered(label: str | int, unlabelled: int) -> int:
    """The version that a server's label means; "default" is what vLLM and SGLang call weights that no update has named."""
    return unlabelled if label == "default" else int(label)
