"""Control calls through the router: told to every worker at once, and told again to one that missed them.

Weights, pauses and caches belong to the whole fleet: a call of `CONTROL` goes to all workers, and its answer is 200 only
when all of them did it. What some worker has done is kept: a worker gets requests only when it has done it too, and one
that comes back, as a new process perhaps, is told it first (`router_health`). So no request is answered by old weights.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from arcforge.serve.http import problem
from arcforge.serve.router_http import Incoming, Upstream, read_incoming
from arcforge.serve.router_workers import Worker, WorkerPool

CONTROL = {
    "/update_weights": "weights",
    "/update_weights_from_disk": "weights",
    "/collective_rpc": "weights",
    "/update_weight_version": "version",
    "/pause": "pause",
    "/resume": "pause",
    "/pause_generation": "pause",
    "/continue_generation": "pause",
    "/flush_cache": "cache",
    "/reset_prefix_cache": "cache",
    "/sleep": "sleep",
    "/wake_up": "sleep",
    "/release_memory_occupation": "",
    "/resume_memory_occupation": "",
    "/abort": "",
    "/abort_request": "",
    "/abort_requests": "",
    "/inference/v1/abort_requests": "",
}
"""Path to kind. The last call of each kind is kept for workers that missed it; of kind "" none is."""
WEIGHTS = ("weights", "version")
METHODS = ("POST", "GET", "PUT")


@dataclass(frozen=True)
class Outcome:
    """What one worker made of a call. status 0: no answer, `problem` says why. asked: whether the call was sent to it."""

    status: int = 0
    answer: Any = None
    problem: str = ""
    asked: bool = True
    broke: bool = False

    @property
    def done(self) -> bool:
        return 200 <= self.status < 300

    @property
    def possible(self) -> bool:
        """Whether it was done, or may have been: nobody knows after a lost connection or an error inside the worker."""
        return self.done or self.broke or self.status >= 500

    @property
    def reason(self) -> str:
        error = self.answer.get("error") or self.answer.get("message") if isinstance(self.answer, dict) else self.answer
        said = error.get("message", error) if isinstance(error, dict) else error
        return self.problem or f"{self.status}: {str(said)[:300]}"

    def told(self) -> dict[str, Any]:
        return {"status": self.status, "answer": self.answer} if self.status else {"problem": self.problem}


async def tell(
    upstream: Upstream,
    worker: Worker,
    request: Incoming,
    timeout: float,
    turn: AbstractAsyncContextManager[Any] | None = None,
) -> Outcome:
    """Send one control call to one worker, after waiting for `turn`; `timeout` seconds for both."""
    try:
        async with asyncio.timeout(timeout), turn or nullcontext():
            response = await upstream.send(worker.url, request)
            try:
                return Outcome(response.status, _parsed(await response.read()))
            finally:
                response.close()
    except aiohttp.ClientConnectorError as error:
        return Outcome(problem=worker.no_connection(error))
    except aiohttp.ClientError as error:
        worker.wake.set()
        return Outcome(problem=f"the connection broke: {error}", broke=True)
    except TimeoutError:
        return Outcome(problem=f"no answer within {timeout:g} s", broke=True)


class FanOut:
    """The endpoint of every path in CONTROL. timeout: seconds for one worker's answer."""

    def __init__(self, pool: WorkerPool, upstream: Upstream, timeout: float, max_body_bytes: int) -> None:
        self._pool, self._upstream, self._timeout, self._max_body_bytes = pool, upstream, timeout, max_body_bytes
        self._turn = asyncio.Lock()  # calls that are kept reach all workers in the same order

    async def answer(self, request: Request) -> Response:
        path = request.scope["path"].rstrip("/")
        async with asyncio.timeout(self._timeout):
            came = await read_incoming(request.scope, request.receive, self._max_body_bytes)
        _, mark, query = came.target.partition("?")
        call = replace(came, target=path + mark + query)  # workers know no slash at its end
        if kind := CONTROL[path]:
            outcomes = await self._kept(kind, call)
        else:
            outcomes = await self._all(call, in_turn=False)
        return _answer(path, kind in WEIGHTS, outcomes)

    async def _kept(self, kind: str, call: Incoming) -> dict[str, Outcome]:
        """Tell all; from then on it is what every worker has to have done, unless surely nobody has."""
        async with self._turn:
            lives = {worker.url: worker.lives for worker in self._pool}
            self._pool.changing = True
            try:
                outcomes = await self._all(call, in_turn=True)
            finally:
                self._pool.changing = False
            if any(outcome.possible for outcome in outcomes.values()):
                number = self._pool.keep(kind, call)
                for url, outcome in outcomes.items():
                    self._note(url, lives[url], kind, number, outcome)
            return outcomes

    def _note(self, url: str, life: int, kind: str, number: int, outcome: Outcome) -> None:
        worker = self._pool.get(url)
        if worker is None:
            return
        if outcome.done and worker.lives == life:
            worker.applied[kind] = number
        elif not outcome.done:
            worker.refusal = outcome.reason

    async def _all(self, call: Incoming, in_turn: bool) -> dict[str, Outcome]:
        workers = list(self._pool)
        outcomes = await asyncio.gather(*(self._one(worker, call, in_turn) for worker in workers))
        return {worker.url: outcome for worker, outcome in zip(workers, outcomes)}

    async def _one(self, worker: Worker, call: Incoming, in_turn: bool) -> Outcome:
        if not worker.alive:
            return Outcome(problem=f"unhealthy: {worker.problem}", asked=False)
        return await tell(self._upstream, worker, call, self._timeout, worker.lock if in_turn else None)


def _answer(path: str, weights: bool, outcomes: Mapping[str, Outcome]) -> Response:
    """200 when all that were asked did it; for weights, one that could not be asked has failed too."""
    told = {url: outcome.told() for url, outcome in outcomes.items()}
    failed = {url: each for url, each in outcomes.items() if not each.done and (each.asked or weights)}
    asked = [outcome for outcome in outcomes.values() if outcome.asked]
    if not failed and asked:
        return JSONResponse({**_agreed([outcome.answer for outcome in asked]), "workers": told})
    reasons = "; ".join(f"{url}: {outcome.reason}" for url, outcome in (failed or outcomes).items())
    message = f"{path}: {len(failed or outcomes)} of {len(outcomes)} workers did not do it: {reasons}"
    status = 502 if any(outcome.asked for outcome in failed.values()) else 503
    return problem(message, "workers_failed", status, workers=told)


def _agreed(answers: list[Any]) -> dict[str, Any]:
    """What all workers say, so that a client of one worker reads the answer of many as well."""
    if not all(isinstance(answer, dict) for answer in answers):
        return {}
    return {k: v for k, v in answers[0].items() if all(k in other and other[k] == v for other in answers)}


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
