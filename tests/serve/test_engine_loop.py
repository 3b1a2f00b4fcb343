"""The loop that owns the engine, without HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from toy_engine import CAPACITY, ToyEngine

from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.serve.engine import EngineFailed, EnginePaused, EngineTimeout, PauseMode
from arcforge.serve.loop import EngineLoop

ENDLESS = Sampling(max_tokens=1_000_000_000)


@asynccontextmanager
async def running(engine: ToyEngine, stuck_after: float = 60.0) -> AsyncIterator[EngineLoop]:
    loop = EngineLoop(engine, stuck_after)
    loop.start()
    try:
        yield loop
    finally:
        engine.gate.set()
        assert await asyncio.to_thread(loop.stop)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_many_requests_get_their_own_answers_and_one_thread_owns_the_engine() -> None:
    async def scenario() -> None:
        async with running(ToyEngine()) as loop:
            asked = [loop.generate([i], Sampling(max_tokens=5), f"r{i}") for i in range(90)]
            for i, output in enumerate(await asyncio.gather(*asked)):
                assert output.spans[0].ids == [(i + 1 + k) % 100 for k in range(5)]
                assert output.finish_reason == "length"

    asyncio.run(scenario())


def test_a_cancelled_waiter_frees_the_engine() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            task = asyncio.create_task(loop.generate([1], ENDLESS, "r"))
            await until(lambda: engine.running == 1)
            task.cancel()
            await until(lambda: not engine.has_work)
            assert (await loop.generate([1], Sampling(max_tokens=2), "r")).spans[0].ids == [2, 3]

    asyncio.run(scenario())


def test_a_timeout_is_typed_and_aborts() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            with pytest.raises(EngineTimeout, match=r"request r: no answer within 0\.1 s"):
                await loop.generate([1], ENDLESS, "r", timeout=0.1)
            await until(lambda: not engine.has_work)

    asyncio.run(scenario())


def test_a_second_request_of_the_same_id_is_refused_and_the_first_goes_on() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            first = asyncio.create_task(loop.generate([1], ENDLESS, "r"))
            await until(lambda: engine.running == 1)
            with pytest.raises(UserError, match="rid r"):
                await loop.generate([1], ENDLESS, "r")
            assert engine.running == 1
            assert await loop.abort("r")
            assert (await first).finish_reason == "abort"
            assert not await loop.abort("r")

    asyncio.run(scenario())


def test_pause_keep_freezes_and_resume_continues() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=20_000), "r"))
            await until(lambda: engine.stats["tokens"] > 0)
            await loop.pause("keep")
            queued = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "queued"))
            before = engine.stats["tokens"]
            await asyncio.sleep(0.1)
            assert engine.stats["tokens"] == before < 20_000
            assert not queued.done()
            assert loop.health().paused == "keep"
            await loop.resume()
            assert sum(len(span.ids) for span in (await task).spans) == 20_000
            assert (await queued).spans[0].ids == [2]

    asyncio.run(scenario())


def test_pause_wait_drains_and_holds_new_requests() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            await loop.pause("keep")  # so that the request is there, unfinished, when the drain begins
            task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=2000), "r"))
            await until(lambda: engine.has_work)
            await loop.pause("wait")
            assert not engine.has_work
            assert (await task).finish_reason == "length"
            held = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "s"))
            await until(lambda: loop.health().waiting == 1)
            assert await loop.score([[1, 2]]) == [[-2.0]]
            with pytest.raises(UserError, match="with this id is running"):
                await loop.generate([1], Sampling(), "s")
            assert not held.done() and not engine.has_work
            await loop.resume()
            assert (await held).spans[0].ids == [2]

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["wait", "abort"])
def test_a_held_request_can_be_aborted_left_and_refused(mode: PauseMode) -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            await loop.pause(mode)
            aborted = asyncio.create_task(loop.generate([1], ENDLESS, "aborted"))
            left = asyncio.create_task(loop.generate([1], ENDLESS, "left"))
            refused = asyncio.create_task(loop.generate([1] * CAPACITY, Sampling(), "refused"))
            with pytest.raises(EngineTimeout):
                await loop.generate([1], ENDLESS, "late", timeout=0.05)
            await until(lambda: loop.health().waiting == 3)
            assert await loop.abort("aborted")
            output = await aborted
            assert output.finish_reason == "abort" and not output.spans
            left.cancel()
            await until(lambda: loop.health().waiting == 1)
            await loop.resume()
            with pytest.raises(UserError):
                await refused
            assert (await loop.generate([1], Sampling(max_tokens=1), "left")).spans[0].ids == [2]
            assert not engine.has_work
            await loop.pause(mode)
            ended = [asyncio.create_task(loop.generate([1], ENDLESS, f"r{i}")) for i in range(2)]
            await until(lambda: loop.health().waiting == 2)
            assert await loop.abort_all() == 2
            assert [(await task).finish_reason for task in ended] == ["abort", "abort"]

    asyncio.run(scenario())


def test_resume_ends_a_drain_that_has_not_finished() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            task = asyncio.create_task(loop.generate([1], ENDLESS, "r"))
            await until(lambda: engine.running == 1)
            drain = asyncio.create_task(loop.pause("wait"))
            await until(lambda: loop.health().paused == "wait")
            await loop.resume()
            with pytest.raises(EnginePaused, match="resumed before"):
                await drain
            await loop.pause("abort")
            assert (await task).finish_reason == "abort"

    asyncio.run(scenario())


def test_scores_that_wait_together_share_one_engine_call_and_one_bad_one_fails_alone() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            engine.gate.clear()
            task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "r"))
            await until(lambda: loop.health().seconds_since_step > 0.05 and not task.done())
            asked = [asyncio.create_task(loop.score([[0, i], [0, i, i]])) for i in range(10)]
            await asyncio.sleep(0.05)
            engine.gate.set()
            assert await asyncio.gather(*asked) == [[[-float(i)], [-float(i)] * 2] for i in range(10)]
            assert engine.batches == [20]

            engine.gate.clear()
            task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "r"))
            await until(lambda: loop.health().seconds_since_step > 0.05 and not task.done())
            good, bad = (asyncio.create_task(loop.score([[0] * n])) for n in (2, CAPACITY))
            await asyncio.sleep(0.05)
            engine.gate.set()
            assert await good == [[0.0]]
            with pytest.raises(UserError, match="does not fit"):
                await bad

    asyncio.run(scenario())


def test_scores_asked_before_an_update_are_answered_by_the_old_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            engine.gate.clear()
            task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "r"))
            await until(lambda: loop.health().seconds_since_step > 0.05 and not task.done())
            before = asyncio.create_task(loop.score([[0, 1]]))
            await asyncio.sleep(0)
            update = asyncio.create_task(loop.update_weights(tmp_path, 7))
            await asyncio.sleep(0)
            after = asyncio.create_task(loop.score([[0, 1]]))
            await asyncio.sleep(0.05)
            engine.gate.set()
            await update
            assert (await before, await after) == ([[-1.0]], [[-8.0]])

    asyncio.run(scenario())


def test_an_engine_that_raises_fails_its_requests_and_stays_failed() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        async with running(engine) as loop:
            asked = [asyncio.create_task(loop.generate([i], ENDLESS, f"r{i}")) for i in range(3)]
            await until(lambda: engine.running == 3)
            engine.failing = True
            for result in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(result, EngineFailed)
                assert "RuntimeError: out of memory" in str(result)
            engine.failing = False
            with pytest.raises(EngineFailed):
                await loop.generate([1], Sampling(), "later")
            assert loop.health().problem == "the engine failed: RuntimeError: out of memory"

    asyncio.run(scenario())


def test_a_bad_request_does_not_hurt_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(ToyEngine()) as loop:
            with pytest.raises(UserError, match="do not fit"):
                await loop.generate([0] * CAPACITY, Sampling(), "r")
            with pytest.raises(UserError, match=r"no config\.json"):
                await loop.update_weights(tmp_path, 1)
            assert loop.health().problem == ""

    asyncio.run(scenario())


def test_the_heart_beats_when_idle_and_stops_when_the_engine_hangs() -> None:
    beats: list[float] = []

    async def scenario() -> None:
        engine = ToyEngine()
        loop = EngineLoop(engine, stuck_after=1.0, on_beat=lambda: beats.append(time.monotonic()))
        loop.start()
        await asyncio.sleep(1.3)
        assert loop.health().problem == "" and len(beats) >= 2
        engine.gate.clear()
        task = asyncio.create_task(loop.generate([1], Sampling(max_tokens=1), "r"))
        await until(lambda: "has not come back" in loop.health().problem)
        assert loop.health().seconds_since_step > 1
        engine.gate.set()
        await task
        assert loop.health().problem == ""
        assert await asyncio.to_thread(loop.stop)

    asyncio.run(scenario())


def test_stop_answers_what_is_left() -> None:
    async def scenario() -> None:
        engine = ToyEngine()
        loop = EngineLoop(engine)
        loop.start()
        task = asyncio.create_task(loop.generate([1], ENDLESS, "r"))
        await until(lambda: engine.running == 1)
        assert await asyncio.to_thread(loop.stop)
        assert (await task).finish_reason == "abort"
        with pytest.raises(EngineFailed, match="not running"):
            await loop.score([[1, 2]])
        assert threading.active_count() < 10

    asyncio.run(scenario())
