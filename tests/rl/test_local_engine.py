"""The engine in this process as a TokenEngine: many requests at once, cancelled ones, and an engine that breaks."""

import asyncio

import pytest
from tiny_model import CONFIG

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.initialise import new_model
from arcforge.rl.local_engine import LocalTokenEngine

SETTINGS = EngineConfig(max_running=3, max_length=64)


class Breaking(Engine):
    """Fails in its n-th step, once, as memory that runs out would."""

    steps_left = 4

    def step(self) -> list[str]:
        self.steps_left -= 1
        if self.steps_left == 0:
            raise RuntimeError("out of memory")
        return super().step()


@pytest.fixture(scope="module")
def model():
    return new_model(CONFIG, seed=0)


def request(i: int, tokens: int = 12) -> tuple[list[int], Sampling]:
    return [3 + i, 7, 11, 2 * i], Sampling(max_tokens=tokens, seed=i)


def alone(model, i: int, tokens: int = 12) -> list[int]:
    engine = Engine(model, SETTINGS)
    engine.add(*request(i, tokens), "r")
    while engine.has_work:
        engine.step()
    return [token for span in engine.result("r").spans for token in span.ids]


def ids(answer) -> list[int]:
    return [token for span in answer[0] for token in span.ids]


def nothing_left(engine: Engine) -> bool:
    return not engine.has_work and not engine._finished and engine.blocks.free == engine.blocks.count


def bounded(coroutine):
    async def within():
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(within())


def test_requests_at_once_get_what_each_gets_alone(model):
    engine = Engine(model, SETTINGS)
    local = LocalTokenEngine(engine)

    async def many():
        return await asyncio.gather(*(local.generate(*request(i, 5 + i), session="same") for i in range(8)))

    answers = bounded(many())
    assert [ids(answer) for answer in answers] == [alone(model, i, 5 + i) for i in range(8)]
    assert {answer[1] for answer in answers} == {"length"} and nothing_left(engine)
    assert engine.stats["steps"] < sum(5 + i for i in range(8)), "they were decoded together"


def test_requests_may_join_while_others_run_and_after_a_pause(model):
    local = LocalTokenEngine(Engine(model, SETTINGS))

    async def joining():
        first = asyncio.create_task(local.generate(*request(0, 30)))
        while local.engine.running == 0:
            await asyncio.sleep(0)
        second = await local.generate(*request(1))
        assert not first.done()
        await first
        await asyncio.sleep(0.01)
        return second, await local.generate(*request(2))

    second, third = bounded(joining())
    assert ids(second) == alone(model, 1) and ids(third) == alone(model, 2)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_cancelled_request_leaves_no_trace_and_disturbs_nobody(model, steps):
    """Before it is admitted, at its prefill, and while it decodes."""
    engine = Engine(model, EngineConfig(max_running=1, max_length=64))
    local = LocalTokenEngine(engine)

    async def cancelling():
        cancelled = asyncio.create_task(local.generate(*request(5, 40)))
        other = asyncio.create_task(local.generate(*request(1)))
        while engine.stats["steps"] < steps:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await other

    assert ids(bounded(cancelling())) == alone(model, 1)
    assert nothing_left(engine) and not local._futures
    assert engine.stats["tokens"] < 30


def test_a_failing_engine_fails_every_request_and_can_go_on(model):
    engine = Breaking(model, SETTINGS)
    local = LocalTokenEngine(engine)

    async def failing():
        requests = (local.generate(*request(i)) for i in range(5))
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        return outcomes, await local.generate(*request(6))

    outcomes, afterwards = bounded(failing())
    assert all(isinstance(outcome, EngineError) for outcome in outcomes), "the waiting ones too"
    assert "out of memory" in str(outcomes[0])
    assert ids(afterwards) == alone(model, 6) and nothing_left(engine)


def test_a_request_that_cannot_be_is_an_engine_error(model):
    local = LocalTokenEngine(Engine(model, SETTINGS))
    for prompt in ([], [CONFIG.vocab_size], [1] * 64):
        with pytest.raises(EngineError):
            bounded(local.generate(prompt, Sampling()))


def test_scores_are_the_engines(model):
    engine = Engine(model, SETTINGS)
    assert bounded(LocalTokenEngine(engine).score([5, 6, 7, 8])) == pytest.approx(engine.score([[5, 6, 7, 8]])[0])
