"""A deterministic engine of the shape of `arcforge.infer.Engine`, without a model, and a real server around it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.applications import Starlette

from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.infer.output import Output
from arcforge.serve.listener import bind, server
from arcforge.serve.loop import EngineLoop

SLOTS = 32
CAPACITY = 4096


@dataclass
class Job:
    prompt: list[int]
    sampling: Sampling
    spans: list[TokenSpan] = field(default_factory=list)
    sampled: int = 0


class ToyEngine:
    """Samples `next_id(prompt, position)`; the log-probability tells the weights: -(version + 1)."""

    def __init__(self, next_id: Callable[[list[int], int], int] | None = None, reward_head: bool = False) -> None:
        self.version = 0
        self.stats: dict[str, float] = {"tokens": 0.0}
        self.next_id = next_id or (lambda prompt, position: (prompt[-1] + 1 + position) % 100)
        self.reward_head = reward_head
        self.gate = threading.Event()  # cleared: the next step hangs until it is set
        self.gate.set()
        self.failing = False
        self.batches: list[int] = []
        self.owner = self.flushed = 0
        self._queue: dict[str, Job] = {}
        self._running: dict[str, Job] = {}
        self._results: dict[str, Output] = {}

    @property
    def has_work(self) -> bool:
        return bool(self._queue or self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def add(self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str) -> None:
        self._owned()
        if len(prompt_ids) >= CAPACITY:
            raise UserError(f"{len(prompt_ids)} prompt tokens do not fit {CAPACITY}")
        self._queue[request_id] = Job(list(prompt_ids), sampling)

    def step(self) -> list[str]:
        self._owned()
        assert self.gate.wait(30)
        if self.failing:
            raise RuntimeError("out of memory")
        while self._queue and len(self._running) < SLOTS:
            request_id = next(iter(self._queue))
            self._running[request_id] = self._queue.pop(request_id)
        return [request_id for request_id, job in list(self._running.items()) if self._advance(request_id, job)]

    def result(self, request_id: str, start: int = 0) -> Output:
        output = self._results.pop(request_id)
        output.spans = after(output.spans, start)
        return output

    def partial(self, request_id: str, start: int) -> Output | None:
        job = self._running.get(request_id)
        if job is None or job.sampled <= start:
            return None
        return Output(after(job.spans, start), "", len(job.prompt), len(job.prompt) // 2)

    def set_version(self, version: int) -> None:
        self._owned()
        self.version = version

    def flush(self) -> None:
        self._owned()
        self.flushed += 1

    def abort(self, request_id: str) -> None:
        self._owned()
        job = self._running.pop(request_id, None) or self._queue.pop(request_id)
        self._results[request_id] = Output(job.spans, "abort", len(job.prompt), 0)

    def score(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        self._owned()
        self.batches.append(len(batch))
        if any(len(ids) >= CAPACITY for ids in batch):
            raise UserError("a sequence does not fit")
        return [[-float(i) - self.version for i in ids[1:]] for ids in batch]

    def reward(self, batch: Sequence[Sequence[int]]) -> list[float]:
        if not self.reward_head:
            raise UserError("this checkpoint has no scalar head; serve a reward model")
        return [float(sum(ids)) for ids in batch]

    def update_weights(self, source: Path | str, version: int) -> None:
        self._owned()
        folder = Path(source)
        if not (folder / "config.json").exists():
            raise UserError(f"{folder}: no config.json")
        self.version = version

    def _advance(self, request_id: str, job: Job) -> bool:
        if not job.spans or job.spans[-1].version != self.version:
            job.spans.append(TokenSpan(ids=[], source="model", version=self.version, trained=True))
        token = self.next_id(job.prompt, job.sampled)
        job.spans[-1].ids.append(token)
        job.spans[-1].logprobs.append(-float(self.version + 1))
        job.sampled += 1
        self.stats["tokens"] += 1
        stop = token in job.sampling.stop_ids
        if stop or job.sampled >= job.sampling.max_tokens:
            del self._running[request_id]
            reason = "stop" if stop else "length"
            self._results[request_id] = Output(job.spans, reason, len(job.prompt), len(job.prompt) // 2)
            return True
        return False

    def _owned(self) -> None:
        """Fails the test when a second thread touches the engine."""
        self.owner = self.owner or threading.get_ident()
        assert self.owner == threading.get_ident()


def after(spans: list[TokenSpan], start: int) -> list[TokenSpan]:
    """The spans without their first `start` tokens."""
    left, kept = start, []
    for span in spans:
        cut = min(left, len(span.ids))
        left -= cut
        if cut < len(span.ids):
            kept.append(span.model_copy(update={"ids": span.ids[cut:], "logprobs": span.logprobs[cut:]}))
    return kept


@contextmanager
def serving(app: Starlette, loop: EngineLoop) -> Iterator[str]:
    """A real uvicorn server in a thread on a free loopback port; yields its address."""
    ready = threading.Event()
    running = server(app, loop, ready.set)
    sock = bind("127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([sock])), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=20, trust_env=False)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
