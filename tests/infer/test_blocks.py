"""Paged blocks: prefixes shared block by block, preemption that loses nothing, chunked prefill that changes nothing."""

import random

import pytest
import torch
from running import prompts, run, tokens

from arcforge.core.messages import Sampling
from arcforge.infer.blocks import BlockPool, extend_keys
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.cache import BLOCK


def chain(tokens, salt=b""):
    keys = []
    extend_keys(keys, tokens, salt)
    return keys


def test_a_key_stands_for_all_tokens_before_it():
    a, b = chain(list(range(64))), chain([99, *range(1, 64)])
    assert len(a) == 4 and not set(a) & set(b), "the first token differs, so every later block does"
    assert chain(list(range(64))) == a and not set(chain(list(range(64)), b"other")) & set(a)
    grown = chain(list(range(40)))
    extend_keys(grown, list(range(64)))
    assert grown == a, "keys grow with the tokens"


def test_blocks_are_found_until_their_room_is_needed_oldest_first():
    pool, keys = BlockPool(4), chain(list(range(3 * BLOCK)))
    mine = [pool.take() for _ in keys]
    for block, key in zip(mine, keys):
        pool.publish(block, key, version=0)
    assert pool.known(keys, 0) == mine and pool.free == 1
    pool.release(mine)
    assert pool.free == 4 and pool.known(keys, 0) == mine
    pool.take()  # the one that holds nothing
    pool.take()  # the end of the chain goes before its beginning
    assert pool.known(keys, 0) == mine[:2]
    pool.share(mine[:1])
    pool.take()
    assert pool.take() is None and pool.known(keys, 0) == mine[:1], "a block with a reader stays"


def test_old_weights_contents_are_never_found_again():
    pool, keys = BlockPool(4, stale=1), chain(list(range(BLOCK)))
    old = pool.take()
    pool.publish(old, keys[0], version=3)
    assert pool.known(keys, 4) == [old] and pool.known(keys, 5) == []
    new = pool.take()
    pool.publish(new, keys[0], version=5)
    assert pool.known(keys, 5) == [new]
    pool.publish(old, keys[0], version=4)
    assert pool.known(keys, 5) == [new], "an older copy does not displace a newer one"
    pool.forget()
    assert pool.known(keys, 5) == []


@pytest.mark.parametrize("drafts", [0, 2])
def test_preemption_loses_no_token(model, drafts):
    """Room for about two of eight requests' ends: the same tokens as with room for all, and every block comes back."""
    requests = [(p, Sampling(temperature=0, max_tokens=60)) for p in prompts(8)]
    roomy = run(Engine(model, EngineConfig(max_running=8, max_length=96, drafts=drafts)), requests)
    engine = Engine(model, EngineConfig(max_running=8, max_length=96, cache_tokens=192, drafts=drafts))
    tight = run(engine, requests)
    assert engine.stats["preemptions"] > 3
    assert {k: tokens(v) for k, v in tight.items()} == {k: tokens(v) for k, v in roomy.items()}
    assert engine.blocks.free == engine.blocks.count and engine.running == engine.waiting == 0


def test_two_hundred_requests_queue_for_a_small_cache(model):
    choose = random.Random(1)
    requests = [
        (choose.choices(range(64), k=choose.randint(1, 60)), Sampling(max_tokens=choose.randint(1, 30), seed=i))
        for i in range(200)
    ]
    engine = Engine(model, EngineConfig(max_running=32, max_length=96, cache_tokens=256, prefill_tokens=64))
    outputs = run(engine, requests)
    assert len(outputs) == 200 and engine.blocks.free == engine.blocks.count
    assert all(len(tokens(outputs[str(i)])) == sampling.max_tokens for i, (_, sampling) in enumerate(requests))


@pytest.mark.parametrize("drafts", [0, 2])
def test_prefill_in_chunks_is_prefill_at_once(model, drafts):
    generator = torch.Generator().manual_seed(2)
    requests = [
        (torch.randint(0, 64, (n,), generator=generator).tolist(), Sampling(temperature=0, max_tokens=12))
        for n in (150, 3, 77, 40)
    ]
    whole = run(Engine(model, EngineConfig(max_running=4, max_length=192, drafts=drafts)), requests)
    engine = Engine(model, EngineConfig(max_running=4, max_length=192, prefill_tokens=16, drafts=drafts))
    assert {k: tokens(v) for k, v in run(engine, requests).items()} == {k: tokens(v) for k, v in whole.items()}
    assert engine.stats["prompt_tokens"] == sum(len(p) for p, _ in requests)


def test_decoding_goes_on_beside_a_long_prefill(model):
    engine = Engine(model, EngineConfig(max_running=2, max_length=256, prefill_tokens=16))
    engine.add([1, 2, 3], Sampling(max_tokens=40), "short")
    engine.step()
    engine.add(list(range(60)) * 3, Sampling(max_tokens=1), "long")
    before = len(engine.sampled("short"))
    for _ in range(8):
        engine.step()
    assert len(engine.sampled("short")) == before + 8 and engine.sampled("long") == []


def test_salted_prefixes_are_not_shared(model):
    engine = Engine(model, EngineConfig(max_running=4, max_length=96))
    prompt = list(range(50))
    cached = [
        run(engine, [(prompt, Sampling(max_tokens=2, cache_salt=salt))])["0"].cached_tokens
        for salt in ("", "a", "a", "")
    ]
    assert cached == [0, 0, 48, 48]


def test_a_running_requests_old_blocks_do_not_start_new_ones_after_an_update(model):
    """A request that began under version 0 and goes on under version 1 publishes blocks that depend on version 0."""
    engine = Engine(model, EngineConfig(max_running=4, max_length=96))
    engine.add(list(range(20)), Sampling(max_tokens=40, seed=1), "old")
    for _ in range(5):
        engine.step()
    engine.set_version(1)
    while engine.has_work:
        engine.step()
    whole = list(range(20)) + tokens(engine.result("old"))
    assert run(engine, [(whole, Sampling(max_tokens=1))])["0"].cached_tokens == 0
    assert run(engine, [(whole, Sampling(max_tokens=1))])["0"].cached_tokens == 48
