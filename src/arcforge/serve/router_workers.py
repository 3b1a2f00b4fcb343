"""The router's workers: which of them may answer, and which one a request goes to."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from arcforge.core.errors import EngineError
from arcforge.serve.hash_ring import HashRing
from arcforge.serve.router_http import Incoming

EXCESS = 8
"""A worker is overloaded when it has at least this many more requests in flight than the least loaded one ..."""
RATIO = 1.5
"""... and more than this many times as many. Below either, moving a session would cost its prefix for little."""
MOST_MOVED = 65_536  # sessions whose move is remembered; the one longest unused is forgotten first

_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

log = logging.getLogger(__name__)


class WorkerFailed(EngineError):
    """No connection to a worker, one that broke, or a worker that was given up while it was waited for."""


@dataclass(frozen=True)
class Kept:
    """A control call that every worker has to have answered before it gets requests. number: their order."""

    number: int
    request: Incoming


@dataclass(eq=False)
class Worker:
    """One engine behind the router. `problem` says why it is not alive, or which call it missed; "" when all is well.

    applied: per kind of control call the number of the last one that it did. lives: how often it was given up; the
    process may be another one since. refusal: why it did not do a kept call; it is told again at `retry_at`. prefill: it
    computes prompts for the others and answers no clients.
    """

    url: str
    prefill: bool = False
    alive: bool = False
    problem: str = "not asked yet"
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    silent: int = 0
    lives: int = 0
    turn: int = 0
    applied: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    retry_at: float = 0.0
    refusals: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: set[asyncio.Future[Any]] = field(default_factory=set)

    def beat(self) -> None:
        if not self.alive:
            log.log(logging.WARNING if self.lives else logging.INFO, "%s answers", self.url)
            self.alive = True
        self.silent, self.problem = 0, ""

    def missed(self, reason: str, limit: int) -> None:
        """An unanswered heartbeat. After `limit` in a row the worker is given up, and who waits for it is told so."""
        self.silent += 1
        self.problem = reason
        if self.silent >= limit:
            self.give_up(reason)
            for future in self.waiting:
                future.cancel()

    def no_connection(self, error: Exception) -> str:
        """Nobody listens there: given up at once, unless it is this process that can open no more connections."""
        number = error.errno if isinstance(error, OSError) else None
        reason = f"no connection: {os.strerror(number) if number and number > 0 else error}"
        if number not in _OUR_OWN:
            self.give_up(reason)
        return reason

    def give_up(self, reason: str) -> None:
        if self.alive:
            log.warning("%s is taken out: %s", self.url, reason)
            self.lives += 1
        self.alive, self.problem = False, reason
        self.applied.clear()
        self.retry_at, self.refusals = 0.0, 0

    def refuse(self, reason: str, pause: float, longest: float) -> None:
        """It did not do a kept call; it is told again after a pause in seconds that doubles each time."""
        if reason != self.refusal:
            log.warning("%s stays out: %s", self.url, reason)
        self.refusal = reason
        self.retry_at = time.monotonic() + min(longest, pause * 2**self.refusals)
        self.refusals = min(self.refusals + 1, 30)

    @contextmanager
    def busy(self) -> Iterator[None]:
        self.in_flight += 1
        self.requests += 1
        try:
            yield
        except WorkerFailed:
            self.failures += 1
            raise
        finally:
            self.in_flight -= 1


class WorkerPool:
    """The workers, the ring of sessions over them, and what every worker has to have been told."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.changing = False  # a call that is kept is on its way to the workers
        self.retries = self.rebalanced = self.handed_off = self.handoffs_failed = 0
        self._workers: dict[str, Worker] = {}
        self._ring = HashRing()
        self._moved: OrderedDict[str, str] = OrderedDict()
        self._turns = itertools.count(1)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def get(self, url: str) -> Worker | None:
        return self._workers.get(url)

    def add(self, url: str, prefill: bool = False) -> Worker:
        self._workers[url] = Worker(url, prefill)
        if not prefill:
            self._ring.add(url)
        return self._workers[url]

    def remove(self, url: str) -> None:
        """It gets no more requests; those in flight go on."""
        if not self._workers.pop(url).prefill:
            self._ring.remove(url)

    def keep(self, kind: str, request: Incoming) -> int:
        """From now on a worker has to have answered this call; its number."""
        number = max((kept.number for kept in self.kept.values()), default=0) + 1
        self.kept[kind] = Kept(number, request)
        for worker in self:
            worker.retry_at, worker.refusals = 0.0, 0
            worker.wake.set()
        return number

    def missing(self, worker: Worker) -> list[tuple[str, Kept]]:
        """The calls that it has not answered, in their order."""
        missing = [(kind, kept) for kind, kept in self.kept.items() if worker.applied.get(kind) != kept.number]
        return sorted(missing, key=lambda item: item[1].number)

    def ready(self, worker: Worker) -> bool:
        """Whether it may get requests."""
        return worker.alive and not self.missing(worker)

    def answers(self, worker: Worker) -> bool:
        """Whether it may get requests of clients."""
        return not worker.prefill and self.ready(worker)

    def choose(self, session: str, avoid: Collection[str] = ()) -> Worker | None:
        """The worker for a request of `session` ("": any), one of `avoid` only if there is no other; None: none is ready."""
        ready = {worker.url: worker for worker in self if self.answers(worker)}
        candidates = {url: worker for url, worker in ready.items() if url not in avoid} or ready
        if not candidates:
            return None
        least = min(candidates.values(), key=lambda worker: (worker.in_flight, worker.turn))
        chosen = self._of_session(session, candidates, least.in_flight) if session else least
        chosen.turn = next(self._turns)
        return chosen

    def has_other(self, avoid: Collection[str]) -> bool:
        return any(self.answers(worker) for worker in self if worker.url not in avoid)

    def choose_prefill(self) -> Worker | None:
        """The prefill worker with the fewest requests; None: none is ready."""
        ready = (worker for worker in self if worker.prefill and self.ready(worker))
        chosen = min(ready, key=lambda worker: (worker.in_flight, worker.turn), default=None)
        if chosen is not None:
            chosen.turn = next(self._turns)
        return chosen

    def _of_session(self, session: str, candidates: Mapping[str, Worker], least: int) -> Worker:
        """The first on the session's way around the ring that is not overloaded; the session stays there."""
        way = [candidates[url] for url in self._way(session) if url in candidates]
        chosen = next(worker for worker in way if not overloaded(worker.in_flight, least))
        if chosen is not way[0]:
            self.rebalanced += 1
            self._moved[session] = chosen.url
        if session in self._moved:
            self._moved.move_to_end(session)
        while len(self._moved) > MOST_MOVED:
            self._moved.popitem(last=False)
        return chosen

    def _way(self, session: str) -> Iterator[str]:
        if session in self._moved:
            yield self._moved[session]
        yield from self._ring.order(session)


def overloaded(in_flight: int, least: int) -> bool:
    return in_flight - least >= EXCESS and in_flight > RATIO * least
