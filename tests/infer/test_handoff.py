"""Prefill here, decode there: what a handed-over prefix gives is what no hand-over gives, or it is refused."""

import copy
import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from running import CONFIG, run, tokens

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.infer.blocks import extend_keys
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.infer.handoff import START, Blocks, export_prefix, fingerprint, import_prefix, pack, unpack
from arcforge.model.initialise import new_model
from arcforge.serve.transport import transport

PREFILLER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from running import CONFIG, run
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.infer.handoff import export_prefix, pack
from arcforge.model.initialise import new_model
from arcforge.serve.transport import transport
mine, engine = transport("shared_memory"), Engine(new_model(CONFIG, seed=1), EngineConfig(max_running=4, max_length=256))
print("ready", flush=True)
for line in sys.stdin:
    prompt = json.loads(line)
    run(engine, [(prompt, Sampling(max_tokens=0))])
    print(json.dumps(mine.put(pack(export_prefix(engine, prompt)))), flush=True)
"""


def prompt_of(length, seed=0):
    return torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(length + seed)).tolist()


def engine_of(model, **config):
    return Engine(model, EngineConfig(**{"max_running": 4, "max_length": 256, **config}))


def prefilled(model, prompt, salt="", **config):
    engine = engine_of(model, **config)
    run(engine, [(prompt, Sampling(max_tokens=0, cache_salt=salt))])
    return engine


def sent(blocks: Blocks) -> Blocks:
    return unpack(bytearray(b"".join(pack(blocks))))


def told(output):
    return tokens(output), [x for span in output.spans for x in span.logprobs]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("drafts", [0, 2])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 100, 192])
def test_decoding_goes_on_as_if_nothing_had_been_handed_over(model, length, drafts, deterministic):
    prompt, mode = prompt_of(length), {"deterministic": deterministic, "drafts": drafts}
    blocks = sent(export_prefix(prefilled(model, prompt, **mode), prompt))
    greedy, random_ones = Sampling(temperature=0, max_tokens=20), Sampling(max_tokens=20, seed=3)
    for sampling in (greedy,) if drafts else (greedy, random_ones):
        alone, decoder = run(engine_of(model, **mode), [(prompt, sampling)])["0"], engine_of(model, **mode)
        assert import_prefix(decoder, blocks) == length // 16 * 16
        output = run(decoder, [(prompt, sampling)])["0"]
        assert output.cached_tokens == (length - 1) // 16 * 16 and alone.cached_tokens == 0
        assert tokens(output) == tokens(alone)
        assert told(output)[1] == (told(alone)[1] if deterministic else pytest.approx(told(alone)[1], abs=1e-5))
        assert decoder.blocks.free == decoder.blocks.count


@pytest.mark.parametrize("length", [17, 33, 100, 190])
def test_a_prefiller_that_has_drafted_once_hands_over_the_mtp_layers_keys_too(model, length):
    """So even the drafts are the same, and with them every draw."""
    prompt, mode = prompt_of(length), {"deterministic": True, "drafts": 2}
    asked = [(prompt, Sampling(max_tokens=25, seed=3))]
    prefiller, alone, decoder = (engine_of(model, **mode) for _ in range(3))
    run(prefiller, [(prompt, Sampling(max_tokens=2))])
    import_prefix(decoder, sent(export_prefix(prefiller, prompt)))
    plain, output = run(alone, asked)["0"], run(decoder, asked)["0"]
    assert told(output) == told(plain) and output.cached_tokens == length // 16 * 16
    assert decoder.speculator.stats == alone.speculator.stats


def test_a_prefill_server_in_another_process(model, request):
    command = [sys.executable, "-c", PREFILLER, str(request.path.parent)]
    mine, decoder = transport("shared_memory"), engine_of(model)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as prefiller:
        assert prefiller.stdout.readline() == "ready\n"
        for length in (50, 200):
            prompt = prompt_of(length)
            prefiller.stdin.write(json.dumps(prompt) + "\n")
            prefiller.stdin.flush()
            ticket = json.loads(prefiller.stdout.readline())
            blocks = unpack(mine.get(ticket, 5.0))
            mine.release(ticket)
            assert import_prefix(decoder, blocks) == length // 16 * 16
            asked = [(prompt, Sampling(temperature=0, max_tokens=20))]
            output, plain = run(decoder, asked)["0"], run(engine_of(model), asked)["0"]
            assert output.cached_tokens == (length - 1) // 16 * 16
            assert tokens(output) == tokens(plain) and told(output)[1] == pytest.approx(told(plain)[1], abs=1e-5)
        prefiller.stdin.close()


def test_a_prompt_that_nobody_computed_gives_nothing(model):
    blocks = sent(export_prefix(engine_of(model), prompt_of(50)))
    assert blocks.tokens == 0 and blocks.keys_LSC.shape[1] == 0
    assert import_prefix(engine_of(model), blocks) == 0


def test_the_next_turn_brings_only_what_is_new(model):
    prompt = prompt_of(100)
    prefiller, decoder = prefilled(model, prompt), engine_of(model)
    assert import_prefix(decoder, sent(export_prefix(prefiller, prompt[:50]))) == 48
    old = [decoder.blocks.known(chain(prompt), 0)]
    decoder.runner.cache.keys[:, [b * 16 for b in old[0]]] += 1.0  # to see that it is not written again
    marked = decoder.runner.cache.keys.clone()
    assert import_prefix(decoder, sent(export_prefix(prefiller, prompt))) == 96
    assert decoder.blocks.known(chain(prompt), 0)[:3] == old[0]
    at = torch.cat([torch.arange(b * 16, b * 16 + 16) for b in old[0]])
    assert torch.equal(decoder.runner.cache.keys[:, at], marked[:, at])
    again = decoder.runner.cache.keys.clone()
    assert import_prefix(decoder, sent(export_prefix(prefiller, prompt))) == 96
    assert torch.equal(decoder.runner.cache.keys, again) and decoder.blocks.free == decoder.blocks.count


def chain(prompt, salt=""):
    keys = []
    extend_keys(keys, prompt, salt.encode())
    return keys


def test_salted_prefixes_stay_apart(model):
    prompt = prompt_of(50)
    prefiller, decoder = prefilled(model, prompt, salt="a"), engine_of(model)
    assert export_prefix(prefiller, prompt).tokens == 0
    assert import_prefix(decoder, sent(export_prefix(prefiller, prompt, "a"))) == 48
    cached = [
        run(decoder, [(prompt, Sampling(max_tokens=1, cache_salt=salt))])["0"].cached_tokens for salt in ("", "b", "a")
    ]
    assert cached == [0, 0, 48]


def test_as_much_as_fits_and_no_block_in_use_is_touched(model):
    asked = [(prompt_of(60, i), Sampling(temperature=0, max_tokens=40)) for i in range(2)]
    plain = run(engine_of(model), asked)
    prompt = prompt_of(192)
    blocks = sent(export_prefix(prefilled(model, prompt), prompt))
    decoder = engine_of(model, max_length=256, cache_tokens=256)
    for i, (other, sampling) in enumerate(asked):
        decoder.add(other, sampling, str(i))
    for _ in range(8):
        decoder.step()
    free = decoder.blocks.free
    assert free == 16 - 2 * 5
    assert import_prefix(decoder, blocks) == free * 16
    while decoder.has_work:
        decoder.step()
    assert {key: tokens(decoder.result(key)) for key in plain} == {key: tokens(out) for key, out in plain.items()}
    one = [(prompt, Sampling(temperature=0, max_tokens=9))]
    assert import_prefix(decoder, blocks) == 192
    assert tokens(run(decoder, one)["0"]) == tokens(run(engine_of(model), one)["0"])
    assert decoder.blocks.free == decoder.blocks.count == 16


def test_nothing_fits_when_all_is_in_use(model):
    decoder = engine_of(model, max_length=64, cache_tokens=64)
    decoder.add(prompt_of(49), Sampling(max_tokens=10), "r")
    decoder.step()
    assert decoder.blocks.free == 0
    prompt = prompt_of(40)
    assert import_prefix(decoder, export_prefix(prefilled(model, prompt), prompt)) == 0


@pytest.mark.parametrize(
    "stale, versions, accepted",
    [
        (0, (0, 0), True),
        (0, (0, 1), False),
        (0, (1, 0), False),
        (0, (3, 3), True),
        (1, (3, 4), True),
        (1, (3, 5), False),
        (9, (0, 5), True),
    ],
)
def test_blocks_of_weights_that_the_engine_does_not_take(model, stale, versions, accepted):
    """versions: of the prefilling and of the decoding engine. What is accepted keeps its version."""
    prompt, (theirs, mine) = prompt_of(50), versions
    prefiller, decoder = engine_of(model), engine_of(model, stale_prefix=stale)
    prefiller.version, decoder.version = theirs, mine
    run(prefiller, [(prompt, Sampling(max_tokens=0))])
    blocks = sent(export_prefix(prefiller, prompt))
    assert blocks.header.version == theirs
    if not accepted:
        with pytest.raises(EngineError, match=f"depends on weights {theirs}, this engine takes"):
            import_prefix(decoder, blocks)
        assert untouched(decoder)
        return
    assert import_prefix(decoder, blocks) == 48
    assert decoder.blocks.version(decoder.blocks.known(chain(prompt), mine)) == theirs
    decoder.set_version(theirs + stale + 1)
    assert run(decoder, [(prompt, Sampling(max_tokens=1))])["0"].cached_tokens == 0


def test_newer_blocks_take_the_place_of_older_ones(model):
    prompt = prompt_of(50)
    decoder, prefiller = prefilled(model, prompt), engine_of(model)
    decoder.set_version(1)
    prefiller.set_version(1)
    run(prefiller, [(prompt, Sampling(max_tokens=0))])
    assert import_prefix(decoder, sent(export_prefix(prefiller, prompt))) == 48
    assert run(decoder, [(prompt, Sampling(max_tokens=1))])["0"].cached_tokens == 48


def untouched(engine):
    keys = engine.runner.cache.keys
    return engine.blocks.free == engine.blocks.count and not keys.any() and not engine.blocks._by_key


def other_model(**changes):
    return new_model(CONFIG.model_copy(update=changes), seed=1)


REFUSED = {
    "tokens": lambda h: {"tokens": (h.tokens[0] ^ 1, *h.tokens[1:])},
    "order": lambda h: {"keys": h.keys[::-1]},
    "salt": lambda h: {"salt": "other"},
    "fewer keys": lambda h: {"keys": h.keys[:-1]},
    "block": lambda h: {"block": 32},
    "version": lambda h: {"version": 7},
    "negative": lambda h: {"version": -1},
    "model": lambda h: {"model": "00"},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_header_that_does_not_fit_is_refused_in_one_line(model, kind):
    prompt = prompt_of(50)
    blocks, decoder = export_prefix(prefilled(model, prompt), prompt), engine_of(model)
    header = blocks.header.model_copy(update=REFUSED[kind](blocks.header))
    with pytest.raises(EngineError, match="a prefix of 48 tokens is refused: it") as error:
        import_prefix(decoder, replace(blocks, header=header))
    assert "\n" not in str(error.value) and untouched(decoder)


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"num_hidden_layers": 3}, "its keys are"),
        ({"num_nextn_predict_layers": 0}, "its keys are"),
        ({"kv_lora_rank": 24}, "its keys are"),
        ({"index_head_dim": 24}, "its keys are"),
        ({"rope_theta": 5000.0}, "from model"),
        ({"index_topk": 8}, "from model"),
        ({"vocab_size": 128}, "from model"),
    ],
)
def test_blocks_of_another_model_are_refused(model, changes, told):
    prompt = prompt_of(50)
    blocks, decoder = sent(export_prefix(prefilled(model, prompt), prompt)), engine_of(other_model(**changes))
    with pytest.raises(EngineError, match=told):
        import_prefix(decoder, blocks)
    assert untouched(decoder)


def test_other_contents_are_refused(model):
    prompt = prompt_of(50)
    blocks, decoder = export_prefix(prefilled(model, prompt), prompt), engine_of(model)
    broken = blocks.keys_LSC.clone()
    broken[1, 7, 3] = float("inf")
    half = replace(blocks, keys_LSC=blocks.keys_LSC.half(), indexer_keys_LSD=blocks.indexer_keys_LSD.half())
    for other, why in (
        (half, "it holds torch.float16"),
        (replace(blocks, keys_LSC=broken), "not finite"),
        (replace(blocks, keys_LSC=blocks.keys_LSC[:, :32]), "its keys are"),
        (replace(blocks, indexer_keys_LSD=blocks.keys_LSC), "its keys are"),
    ):
        with pytest.raises(EngineError, match=why):
            import_prefix(decoder, other)
    assert untouched(decoder)


def test_an_engine_that_promises_more_takes_no_less(model):
    prompt = prompt_of(50)
    blocks = sent(export_prefix(prefilled(model, prompt), prompt))
    for mode, why in (({"deterministic": True}, "not computed deterministically"), ({"values": "fp8"}, "from model")):
        decoder = engine_of(new_model(CONFIG, seed=1), **mode)
        with pytest.raises(EngineError, match=why):
            import_prefix(decoder, blocks)
        assert untouched(decoder)
    exact = sent(export_prefix(prefilled(new_model(CONFIG, seed=1), prompt, deterministic=True), prompt))
    assert import_prefix(engine_of(new_model(CONFIG, seed=1)), exact) == 48


def test_only_the_longest_context_may_differ_between_models():
    assert fingerprint(CONFIG) == fingerprint(CONFIG.model_copy(update={"max_position_embeddings": 9}))
    for field, value in CONFIG.model_dump().items():
        if field != "max_position_embeddings" and type(value) in (int, float):
            assert fingerprint(CONFIG.model_copy(update={field: value + 1})) != fingerprint(CONFIG), field


def test_every_flipped_bit_and_every_cut_is_found(model):
    prompt = prompt_of(40)
    whole = b"".join(pack(export_prefix(prefilled(model, prompt), prompt)))
    choose = random.Random(1)
    places = [*range(START.size * 8), *(choose.randrange(len(whole) * 8) for _ in range(400)), len(whole) * 8 - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(EngineError, match="handed-over prefix") as error:
            unpack(damaged)
        assert "\n" not in str(error.value)
    for cut in (b"", whole[:7], whole[: START.size], whole[:-1], whole + b"\0", whole[1:]):
        with pytest.raises(EngineError, match="handed-over prefix"):
            unpack(cut)


def test_what_is_unpacked_is_what_was_packed_and_copies_only_what_must_not_be_written(model):
    prompt = prompt_of(40)
    blocks = export_prefix(prefilled(model, prompt), prompt)
    whole = b"".join(pack(blocks))
    buffer = bytearray(whole)
    for unpacked in (unpack(whole), unpack(buffer), unpack(memoryview(whole))):
        assert unpacked.header == blocks.header
        assert torch.equal(unpacked.keys_LSC, blocks.keys_LSC)
        assert torch.equal(unpacked.indexer_keys_LSD, blocks.indexer_keys_LSD)
    view = unpack(buffer)
    buffer[-1] ^= 1
    assert not torch.equal(view.indexer_keys_LSD, blocks.indexer_keys_LSD)


def test_a_bfloat16_cache_is_handed_over(model):
    prompt = prompt_of(50)
    prefiller, decoder = prefilled(model, prompt), engine_of(model)
    for engine in (prefiller, decoder):
        cache = engine.runner.cache
        cache.keys, cache.indexer_keys = cache.keys.bfloat16(), cache.indexer_keys.bfloat16()
    blocks = sent(export_prefix(prefiller, prompt))
    assert blocks.header.dtype == "bfloat16" and import_prefix(decoder, blocks) == 48
    again = export_prefix(decoder, prompt)
    assert torch.equal(again.keys_LSC, blocks.keys_LSC) and again.keys_LSC.any()
    assert torch.equal(again.indexer_keys_LSD, blocks.indexer_keys_LSD) and again.indexer_keys_LSD.any()
    with pytest.raises(EngineError, match=r"this cache torch\.float32"):
        import_prefix(engine_of(model), blocks)


def test_imports_between_the_steps_of_a_busy_small_engine_change_no_token(model):
    """Requests come and go in a cache too small for them, prefixes are imported at any moment: all decode as they would alone."""
    choose = random.Random(5)
    prompts = [prompt_of(choose.randint(1, 120), i) for i in range(12)]
    prompts += [prompt + prompt_of(choose.randint(1, 30), 99) for prompt in prompts]
    prefiller = engine_of(model, max_running=32, cache_tokens=16384)
    run(prefiller, [(prompt, Sampling(max_tokens=0)) for prompt in prompts])
    packed = [sent(export_prefix(prefiller, prompt)) for prompt in prompts]
    asked = [(p, Sampling(temperature=0, max_tokens=choose.randint(1, 25))) for p in choose.choices(prompts, k=40)]
    plain = run(engine_of(model, max_running=40), copy.deepcopy(asked))
    decoder, waiting, cached = (
        engine_of(model, cache_tokens=384, prefill_tokens=64, drafts=1),
        list(enumerate(asked)),
        0,
    )
    while decoder.has_work or waiting:
        for number, (prompt, sampling) in waiting[:2] if choose.random() < 0.3 else []:
            import_prefix(decoder, packed[prompts.index(prompt)])
            decoder.add(prompt, sampling, str(number))
            waiting = waiting[1:]
        import_prefix(decoder, choose.choice(packed))
        for finished in decoder.step():
            output = decoder.result(finished)
            cached += output.cached_tokens
            assert tokens(output) == tokens(plain[finished]), finished
    assert cached > 500 and decoder.stats["preemptions"] > 0
    assert decoder.blocks.free == decoder.blocks.count
