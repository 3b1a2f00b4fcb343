"""Heartbeats of the router's workers: who is silent is taken out, who is back is brought up to date and let in again.

GLM-5 report, section 3.6: rollout servers are monitored by heartbeats, unhealthy ones are taken out of the router, and
their requests are tried again on healthy ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import aiohttp

from arcforge.core.errors import UserError
from arcforge.serve.router_control import tell
from arcforge.serve.router_http import Incoming, Upstream
from arcforge.serve.router_workers import Worker, WorkerPool

BEAT = Incoming("GET", "/health")
LONGEST_PAUSE = 30.0  # seconds between two tries to bring a worker up to date that refuses a call

log = logging.getLogger(__name__)


class Heartbeats:
    """One task per worker. interval: seconds between beats; timeout: for one; failures: unanswered ones in a row until a
    worker is taken out (a refused connection does it at once); call_timeout: seconds for a call that is told again."""

    def __init__(
        self,
        pool: WorkerPool,
        upstream: Upstream,
        interval: float,
        timeout: float,
        failures: int,
        call_timeout: float,
    ) -> None:
        self._pool, self._upstream = pool, upstream
        self._interval, self._timeout, self._failures, self._call_timeout = interval, timeout, failures, call_timeout
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, worker: Worker) -> None:
        """Watch it from now on; comes back when it has answered, or after the time for one beat."""
        first = asyncio.Event()
        self._tasks[worker.url] = asyncio.create_task(self._watch(worker, first))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await first.wait()

    async def stop(self, url: str) -> None:
        if task := self._tasks.pop(url, None):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def stop_all(self) -> None:
        for url in list(self._tasks):
            await self.stop(url)

    async def _watch(self, worker: Worker, first: asyncio.Event) -> None:
        while True:
            await self._beat(worker)
            if worker.alive:
                await self._bring_up_to_date(worker)
            first.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await worker.wake.wait()
            worker.wake.clear()

    async def _beat(self, worker: Worker) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._upstream.send(worker.url, BEAT)
                try:
                    await response.read()
                finally:
                    response.close()
        except (aiohttp.ClientConnectorError, UserError) as error:
            worker.no_connection(error)
        except aiohttp.ClientError as error:
            worker.missed(f"/health: {type(error).__name__}: {error}", self._failures)
        except TimeoutError:
            worker.missed(f"/health: no answer within {self._timeout:g} s", self._failures)
        else:
            if 200 <= response.status < 300:
                worker.beat()
            else:
                worker.missed(f"/health answers {response.status}", self._failures)

    async def _bring_up_to_date(self, worker: Worker) -> None:
        """Tell it, in their order, the kept calls that it missed; after a refusal, later and later again."""
        while worker.retry_at <= time.monotonic() and (missing := self._pool.missing(worker)):
            kind, kept = missing[0]
            life = worker.lives
            async with worker.lock:
                # A call that is on its way to everyone comes first: what is kept may be older than that.
                if self._pool.changing or self._pool.kept[kind] is not kept or worker.applied.get(kind) == kept.number:
                    return
                outcome = await tell(self._upstream, worker, kept.request, self._call_timeout)
            if not outcome.done:
                worker.refuse(f"{kept.request.target}: {outcome.reason}", self._interval, LONGEST_PAUSE)
            elif worker.lives == life:
                worker.applied[kind] = kept.number
                log.warning("%s was told %s again", worker.url, kept.request.target)
