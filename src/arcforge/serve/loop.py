"""EngineLoop: one thread that owns the engine. Everyone else puts a command in its queue and awaits the answer.

The thread takes every waiting command, advances the engine by one step, and hands all answers of that round to the
event loop in one call, so that a request costs little beside the model. It beats once per round, idle or not: when the
beat stops for `stuck_after` seconds, or the engine raised, `health()` says so and the server answers 503 (GLM-5 report,
section 3.6: rollout servers emit heartbeats, unhealthy ones are taken out and their requests retried elsewhere).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Sampling
from arcforge.serve.engine import Engine, EngineFailed, EnginePaused, Health, Output, PauseMode
from arcforge.serve.waiters import Future, Stream, settle, within

IDLE_TICK = 0.5  # seconds between beats when there is nothing to do
Batch = Sequence[Sequence[int]]
T = TypeVar("T")

log = logging.getLogger(__name__)


class EngineLoop:
    """Owns `engine` in a thread of its own. The async methods belong to one event loop.

    They raise UserError for what the caller did wrong and EngineError for everything else.
    """

    def __init__(
        self,
        engine: Engine,
        stuck_after: float = 60.0,
        on_beat: Callable[[], None] = lambda: None,
        on_finish: Callable[[Output], None] = lambda output: None,
    ) -> None:
        """In the engine's thread, `on_beat` is called once per round and `on_finish` once per request that ends (with what a
        stream had not told before)."""
        self._engine = engine
        self._stuck_after = stuck_after
        self._on_beat, self._on_finish = on_beat, on_finish
        self._commands: SimpleQueue[tuple[Future | None, Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._pending: dict[str, Future] = {}
        self._streams: dict[str, Stream] = {}
        self._held: dict[str, tuple[Future, Sequence[int], Sampling, Stream | None]] = {}
        self._batches: dict[str, list[tuple[Future, Batch]]] = {"score": [], "reward": []}
        self._drains: list[Future] = []
        self._answers: list[tuple[Future | Stream, Any, BaseException | None]] = []
        self._paused: PauseMode | None = None
        self._failure = ""
        self._stopping = False
        names = ("requests", "aborted", "prompt_tokens", "cached_tokens", "completion_tokens", "steps", "step_seconds")
        self._totals: dict[str, float] = dict.fromkeys(names, 0.0)
        self._beat = (time.monotonic(), Health("", "", engine.version, 0, 0, 0.0))
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # The event loop's side.

    def start(self) -> None:
        """Called in the event loop that awaits the answers."""
        self._event_loop = asyncio.get_running_loop()
        self._beat = (time.monotonic(), self._beat[1])
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Abort what runs and end the thread. False when the engine did not come back in time."""
        self._stopping = True
        self._commands.put((None, self._nothing, ()))
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str, timeout: float = 600.0
    ) -> Output:
        """Run one request to its end. Cancelling the caller, or `timeout` seconds, aborts it in the engine."""
        future = self._submit(self._add, prompt_ids, sampling, request_id)
        try:
            return await within(future, timeout, f"request {request_id}")
        finally:
            if future.cancelled():
                self._commands.put((None, self._abandon, (request_id, future)))

    async def stream(
        self, prompt_ids: Sequence[int], sampling: Sampling, request_id: str, timeout: float = 600.0
    ) -> AsyncGenerator[Output, None]:
        """`generate` piece by piece: each Output holds the tokens since the one before, the last one a finish reason. Leaving
        the iterator early aborts the request; close it (`aclosing`)."""
        stream = Stream()
        future = self._submit(self._add, prompt_ids, sampling, request_id, stream)
        future.add_done_callback(lambda _: stream.pieces.put_nowait(None))
        end = asyncio.get_running_loop().time() + timeout
        try:
            while True:
                left = max(end - asyncio.get_running_loop().time(), 0.0)
                piece = await within(stream.pieces.get(), left, f"request {request_id}")
                if piece is None:
                    yield future.result()
                    return
                yield piece
        finally:
            if not future.done():
                future.cancel()
                self._commands.put((None, self._abandon, (request_id, future)))

    async def abort(self, request_id: str, timeout: float = 60.0) -> bool:
        """End a request now; its waiter gets what was sampled with finish_reason "abort". False: no such request."""
        return await within(self._submit(self._abort, request_id), timeout, "abort")

    async def abort_all(self, timeout: float = 60.0) -> int:
        """`abort` of every request there is; how many there were."""
        return await within(self._submit(self._abort_all), timeout, "abort")

    async def score(self, batch: Batch, timeout: float = 600.0) -> list[list[float]]:
        """Log-probabilities of ids[1:] under the current weights; requests of one round share an engine call."""
        return await within(self._submit(self._collect, "score", batch), timeout, "score")

    async def reward(self, batch: Batch, timeout: float = 600.0) -> list[float]:
        return await within(self._submit(self._collect, "reward", batch), timeout, "reward")

    async def update_weights(self, source: Path | str, version: int, timeout: float = 600.0) -> None:
        """Load new weights between two steps; running requests continue under them."""
        await within(self._submit(self._update, source, version), timeout, "weight update")

    async def pause(self, mode: PauseMode, timeout: float = 600.0) -> None:
        """keep: freeze running requests. wait: finish running ones first. abort: end them now.

        New requests are held until `resume`, as vLLM and SGLang hold them. Scoring and weight updates go on under all three.
        """
        await within(self._submit(self._pause, mode), timeout, f"pause {mode}")

    async def flush(self, timeout: float = 60.0) -> None:
        """Nothing cached so far starts another request."""
        await within(self._submit(self._flush), timeout, "flush")

    async def with_engine(self, action: Callable[[Engine], T], timeout: float = 60.0) -> T:
        """The result of `action(engine)`, called in the engine's thread between two steps."""
        return await within(self._submit(self._call, action), timeout, "an action on the engine")

    async def resume(self, timeout: float = 60.0) -> None:
        await within(self._submit(self._resume), timeout, "resume")

    async def statistics(self, timeout: float = 2.0) -> tuple[dict[str, float], dict[str, float]]:
        """(totals of the loop, numbers of the engine); the engine's are left out when it does not answer in time."""
        try:
            of_engine = await within(self._submit(self._engine_stats), timeout, "statistics")
        except EngineError:
            of_engine = {}
        return dict(self._totals), of_engine

    def health(self) -> Health:
        """The last beat, without waiting for the engine."""
        beaten, health = self._beat
        seconds = time.monotonic() - beaten
        problem = self._failure
        if not problem and not self._thread.is_alive():
            problem = "the engine thread is not running"
        if not problem and seconds > self._stuck_after:
            problem = f"the engine has not come back for {seconds:.0f} s"
        return replace(health, problem=problem, seconds_since_step=seconds)

    def _submit(self, handler: Callable[..., None], *arguments: Any) -> Future:
        if self._stopping or not self._thread.is_alive():
            raise EngineFailed(self._failure or "the engine thread is not running")
        future = asyncio.get_running_loop().create_future()
        self._commands.put((future, handler, (future, *arguments)))
        return future

    # The engine thread's side.

    def _run(self) -> None:
        self._publish()
        while not self._stopping:
            self._guarded(None, self._round)
            self._publish()
        self._take_commands(wait=False)
        self._answer_batches()
        self._begin_held()
        for request_id, future in list(self._pending.items()):
            self._guarded(None, self._abandon, request_id, future)
        self._end_drains(EngineFailed("the server is stopping"))
        self._publish()

    def _round(self) -> None:
        self._take_commands(wait=not self._may_step())
        self._answer_batches()
        if self._may_step():
            self._step()
        if self._drains and not self._engine.has_work:
            self._end_drains(None)

    def _may_step(self) -> bool:
        return not self._failure and self._paused != "keep" and self._engine.has_work

    def _take_commands(self, wait: bool) -> None:
        try:
            future, handler, arguments = self._commands.get(timeout=IDLE_TICK) if wait else self._commands.get_nowait()
            while True:
                if future is None or not future.cancelled():
                    self._guarded(future, handler, *arguments)
                future, handler, arguments = self._commands.get_nowait()
        except Empty:
            return

    def _guarded(self, future: Future | None, action: Callable[..., None], *arguments: Any) -> None:
        """Run one thing. UserError is the fault of the caller who awaits `future`; any other error ends the service."""
        if self._failure and future is not None:
            return self._answer(future, None, EngineFailed(self._failure))
        try:
            action(*arguments)
        except Exception as error:
            if future is None or not isinstance(error, UserError | EngineError):
                log.exception("the engine failed")
                self._fail(error)
                error = EngineFailed(self._failure)
            if future is not None:
                self._answer(future, None, error)

    def _step(self) -> None:
        start = time.monotonic()
        for request_id in self._engine.step():
            if request_id in self._pending:
                self._finish(request_id)
        for request_id, stream in self._streams.items():
            piece = self._engine.partial(request_id, stream.told)
            if piece is not None:
                stream.told += sum(len(span.ids) for span in piece.spans)
                self._answers.append((stream, piece, None))
        self._totals["steps"] += 1
        self._totals["step_seconds"] += time.monotonic() - start

    def _finish(self, request_id: str) -> None:
        stream = self._streams.pop(request_id, None)
        told = stream.told if stream is not None else 0
        output = self._engine.result(request_id, told)
        totals = self._totals
        totals["requests"] += 1
        totals["aborted"] += output.finish_reason == "abort"
        totals["prompt_tokens"] += output.prompt_tokens
        totals["cached_tokens"] += output.cached_tokens
        totals["completion_tokens"] += told + sum(len(span.ids) for span in output.spans)
        self._on_finish(output)
        self._answer(self._pending.pop(request_id), output)

    def _fail(self, error: Exception) -> None:
        self._failure = f"the engine failed: {type(error).__name__}: {error}"
        for future in [*self._pending.values(), *(held[0] for held in self._held.values())]:
            self._answer(future, None, EngineFailed(self._failure))
        self._pending.clear()
        self._held.clear()
        self._streams.clear()
        self._end_drains(EngineFailed(self._failure))

    def _add(
        self,
        future: Future,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        request_id: str,
        stream: Stream | None = None,
    ) -> None:
        if request_id in self._pending or request_id in self._held:
            raise UserError(f"rid {request_id}: a request with this id is running")
        if self._paused in ("wait", "abort"):
            self._held[request_id] = (future, prompt_ids, sampling, stream)
        else:
            self._begin(future, prompt_ids, sampling, request_id, stream)

    def _begin(
        self, future: Future, prompt_ids: Sequence[int], sampling: Sampling, request_id: str, stream: Stream | None
    ) -> None:
        self._engine.add(prompt_ids, sampling, request_id)
        self._pending[request_id] = future
        if stream is not None:
            self._streams[request_id] = stream

    def _begin_held(self) -> None:
        held, self._held = self._held, {}
        for request_id, (future, prompt_ids, sampling, stream) in held.items():
            self._guarded(future, self._begin, future, prompt_ids, sampling, request_id, stream)

    def _abort(self, future: Future, request_id: str) -> None:
        held = self._held.get(request_id)
        waiter = held[0] if held is not None else self._pending.get(request_id)
        if waiter is not None:
            self._abandon(request_id, waiter)
        self._answer(future, waiter is not None)

    def _abort_all(self, future: Future) -> None:
        waiters = {**self._pending, **{request_id: held[0] for request_id, held in self._held.items()}}
        for request_id, waiter in waiters.items():
            self._abandon(request_id, waiter)
        self._answer(future, len(waiters))

    def _abandon(self, request_id: str, waiter: Future) -> None:
        """End the request of this waiter; a later request under the same id is left alone."""
        held = self._held.get(request_id)
        if held is not None and held[0] is waiter:
            _, prompt_ids, sampling, stream = self._held.pop(request_id)
            self._guarded(waiter, self._begin, waiter, prompt_ids, sampling, request_id, stream)
        if self._pending.get(request_id) is waiter:
            self._engine.abort(request_id)
            self._finish(request_id)

    def _collect(self, future: Future, kind: str, batch: Batch) -> None:
        self._batches[kind].append((future, batch))

    def _answer_batches(self) -> None:
        for kind, method in (("score", self._engine.score), ("reward", self._engine.reward)):
            taken, self._batches[kind] = self._batches[kind], []
            if len(taken) > 1 and self._answer_together(method, taken):
                continue
            for future, batch in taken:
                self._guarded(future, lambda f, m, b: self._answer(f, m(b)), future, method, batch)

    def _answer_together(self, method: Callable[[Batch], list[Any]], taken: list[tuple[Future, Batch]]) -> bool:
        """One engine call for all. False when it raised: asked one by one, only the one at fault hears of it."""
        try:
            values = iter(method([ids for _, batch in taken for ids in batch]))
        except Exception:
            return False
        for future, batch in taken:
            self._answer(future, [next(values) for _ in batch])
        return True

    def _update(self, future: Future, source: Path | str, version: int) -> None:
        self._answer_batches()  # asked before the update: answered by the old weights
        self._engine.update_weights(source, version)
        self._answer(future, None)

    def _pause(self, future: Future, mode: PauseMode) -> None:
        self._end_drains(EnginePaused(f"pause {mode} took the place of an earlier pause wait"))
        self._paused = mode
        if mode == "keep":
            self._begin_held()  # they wait in the engine as well
        if mode == "abort":
            for request_id, waiter in list(self._pending.items()):
                self._abandon(request_id, waiter)
        if mode == "wait" and self._engine.has_work:
            self._drains.append(future)
        else:
            self._answer(future, None)

    def _resume(self, future: Future) -> None:
        self._paused = None
        self._begin_held()
        self._end_drains(EnginePaused("resumed before the running requests had finished"))
        self._answer(future, None)

    def _end_drains(self, error: EngineError | None) -> None:
        for future in self._drains:
            self._answer(future, None, error)
        self._drains.clear()

    def _engine_stats(self, future: Future) -> None:
        self._answer(future, {name: float(value) for name, value in self._engine.stats.items()})

    def _flush(self, future: Future) -> None:
        self._engine.flush()
        self._answer(future, None)

    def _call(self, future: Future, action: Callable[[Engine], Any]) -> None:
        self._answer(future, action(self._engine))

    def _nothing(self) -> None:
        """Wakes the thread."""

    def _answer(self, future: Future, value: Any, error: BaseException | None = None) -> None:
        self._answers.append((future, value, error))

    def _publish(self) -> None:
        """Beat, then hand this round's answers to the event loop in one call."""
        engine = self._engine
        waiting = engine.waiting + len(self._held)
        health = Health("", self._paused or "", engine.version, engine.running, waiting, 0.0)
        self._beat = (time.monotonic(), health)
        self._on_beat()
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        try:
            self._event_loop.call_soon_threadsafe(settle, answers)
        except RuntimeError:
            log.warning("%d answers came after the event loop had closed", len(answers))
