"""Who computes what in the next step: admission, chunked prefill, blocks for every new token, preemption when none is left.

A request is admitted when the blocks of all its tokens are free, starts from the longest prefix that the cache knows, and is
prefilled within the step's budget while others decode. When blocks run out, the request admitted last gives its blocks
back and waits, in front of all others, to be computed again; nothing that it sampled is lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from arcforge.infer.blocks import BlockPool, extend_keys
from arcforge.infer.request import Request
from arcforge.model.cache import BLOCK, PagedCache

GROUP, PATIENCE = 8, 8
"""Where more requests wait than may run, a GROUPth of the places is given out at once, or what is free after PATIENCE steps: one
forward over several short prompts costs little more than one over a single prompt. Measured with a model of 1M and prompts of 16
to 128 tokens: 4% more tokens per second with 32 places, a third with 128."""


@dataclass
class Plan:
    """One step: how many tokens of which requests to prefill, and which requests to decode."""

    prefill: list[tuple[Request, int]] = field(default_factory=list)
    decode: list[Request] = field(default_factory=list)


class Scheduler:
    """max_running requests at once; prefill_tokens per step; ahead: cached positions that a decoding step may need beyond one;
    max_length: tokens of a request."""

    def __init__(self, pool: BlockPool, max_running: int, prefill_tokens: int, ahead: int, max_length: int) -> None:
        self._pool, self._max_running, self._prefill_tokens = pool, max_running, prefill_tokens
        self._ahead, self._max_length = ahead, max_length
        self.waiting: deque[Request] = deque()
        self.running: dict[str, Request] = {}
        self.preemptions = 0
        self._waited = 0

    def schedule(self, version: int) -> Plan:
        """What to do now; every request of the plan has the blocks it needs."""
        self._admit(version)
        plan, budget = Plan(), self._prefill_tokens
        for request in list(self.running.values()):
            if request.request_id not in self.running:  # preempted for one before it
                continue
            if request.decoding:
                if self._reserve(request, min(request.computed + 1 + self._ahead, self._max_length)):
                    plan.decode.append(request)
            elif budget:
                count = min(request.left, budget)
                if self._reserve(request, request.computed + count):
                    plan.prefill.append((request, count))
                    budget -= count
        return plan

    def advance(self, request: Request, count: int) -> None:
        """`count` more tokens are in the cache; blocks that got full can be found by others."""
        before = request.computed // BLOCK
        request.computed += count
        extend_keys(request.keys, request.tokens, request.salt)
        for number in range(before, request.computed // BLOCK):
            self._pool.publish(request.table[number], request.keys[number], request.oldest)

    def release(self, request: Request) -> None:
        """It has ended: out of the running and the waiting ones."""
        if self.running.pop(request.request_id, None) is None:
            self.waiting.remove(request)
        self._pool.release(request.table)
        request.table = []

    def forget(self) -> None:
        """Nothing cached so far may start another request."""
        self._pool.forget()
        for request in self.running.values():
            request.oldest = -1

    def _gathers(self) -> bool:
        """Whether places that became free are kept for a moment, until there are more of them."""
        free = self._max_running - len(self.running)
        if len(self.waiting) < free or free >= max(1, self._max_running // GROUP) or self._waited >= PATIENCE:
            self._waited = 0
            return False
        self._waited += free > 0
        return True

    def _admit(self, version: int) -> None:
        if self._gathers():
            return
        prefilling = [r for r in self.running.values() if not r.decoding]
        tokens = sum(r.left for r in prefilling)
        computing = {key for r in prefilling for key in r.keys[r.computed // BLOCK :]}
        while self.waiting and len(self.running) < self._max_running and tokens < self._prefill_tokens:
            request = self.waiting[0]
            extend_keys(request.keys, request.tokens, request.salt)
            shareable = [] if request.reads_whole_prompt else request.keys[: (len(request.tokens) - 1) // BLOCK]
            known = self._pool.known(shareable, version)
            if len(known) < len(shareable) and shareable[len(known)] in computing:
                return  # the blocks it wants are on their way: a group's prompt is computed once
            needed = PagedCache.blocks_for(len(request.tokens) + 1) - len(known)
            if self.running and needed > self._pool.free_besides(known):
                return
            self.waiting.popleft()
            self._start(request, known, version)
            tokens += request.left
            computing.update(request.keys[len(known) :])

    def _start(self, request: Request, known: list[int], version: int) -> None:
        self._pool.share(known)
        request.table = list(known)
        request.computed = request.drafted_to = len(known) * BLOCK
        if request.oldest < 0:
            request.cached_tokens = request.computed
        request.oldest = min(version, self._pool.version(known)) if known else version
        self.running[request.request_id] = request

    def _reserve(self, request: Request, tokens: int) -> bool:
        """Blocks for the first `tokens` positions. False: the request itself had to give way."""
        while len(request.table) < PagedCache.blocks_for(tokens):
            block = self._pool.take()
            if block is not None:
                request.table.append(block)
                continue
            last = next(reversed(self.running.values()))
            self._preempt(last)
            if last is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.preemptions += 1
        del self.running[request.request_id]
        self._pool.release(request.table)
        request.table, request.computed, request.hidden_D, request.pending = [], 0, None, []
        self.waiting.appendleft(request)
