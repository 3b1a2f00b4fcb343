"""The engine: tokens, log-probabilities, versions, speculation."""

import math
from collections import Counter

import pytest
import torch
from running import CONFIG, prompts, run, tokens
from safetensors.torch import load_file, save_file

from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig, load_engine
from arcforge.infer.precision import rounding_gap
from arcforge.infer.runner import by_length
from arcforge.model.checkpoint import save_checkpoint, to_hf
from arcforge.model.initialise import new_model


def test_greedy_equals_full_forward_in_any_batch(model):
    sampling = Sampling(temperature=0, max_tokens=30)
    outputs = run(Engine(model, EngineConfig(max_running=4, max_length=96)), [(p, sampling) for p in prompts(9)])
    for i, prompt in enumerate(prompts(9)):
        ids = list(prompt)
        for _ in range(30):
            hidden = model(torch.tensor([ids]), model.layout(torch.zeros(1, len(ids)).long(), sparse=True)).hidden_BTD
            ids.append(int(model.lm_head(hidden[0, -1]).argmax()))
        assert tokens(outputs[str(i)]) == ids[len(prompt) :]
        assert outputs[str(i)].finish_reason == "length"


def test_logprobs_equal_the_trainers_forward(model):
    engine = Engine(model, EngineConfig(max_running=4, max_length=96))
    outputs = run(engine, [(p, Sampling(max_tokens=40, seed=i)) for i, p in enumerate(prompts(6))])
    for i, prompt in enumerate(prompts(6)):
        sampled = tokens(outputs[str(i)])
        scored = engine.score([prompt + sampled])[0][len(prompt) - 1 :]
        recorded = [x for span in outputs[str(i)].spans for x in span.logprobs]
        assert max(abs(a - b) for a, b in zip(scored, recorded, strict=True)) < 1e-4


def test_scores_of_one_token_and_of_none_are_empty(model):
    engine = Engine(model, EngineConfig(max_running=1, max_length=96, prefill_tokens=64))
    long = [p for p in prompts(6) if len(p) > 1]
    mixed = [[], *long[:3], [5], [], *long[3:], [7]]
    scored = engine.score(mixed)
    assert [len(row) for row in scored] == [max(len(ids) - 1, 0) for ids in mixed]
    assert [row for row in scored if row] == [pytest.approx(engine.score([ids])[0], abs=1e-5) for ids in long]
    assert engine.score([]) == [] and engine.score([[]]) == [[]]


def test_same_seed_same_tokens_and_stop_ids_end(model):
    sampling = Sampling(max_tokens=50, seed=3, stop_ids=(7, 8, 9, 10))
    a = run(Engine(model, EngineConfig(max_running=2, max_length=96)), [(prompts(1)[0], sampling)])["0"]
    b = run(Engine(model, EngineConfig(max_running=8, max_length=96)), [(p, sampling) for p in prompts(5)])["0"]
    assert tokens(a) == tokens(b)
    assert (a.finish_reason == "stop") == (tokens(a)[-1] in sampling.stop_ids)


@pytest.mark.parametrize("drafts", [1, 3])
def test_speculative_greedy_is_identical(model, drafts):
    requests = [(p, Sampling(temperature=0, max_tokens=25)) for p in prompts(7)]
    plain = run(Engine(model, EngineConfig(max_running=3, max_length=96)), requests)
    engine = Engine(model, EngineConfig(max_running=3, max_length=96, drafts=drafts))
    fast = run(engine, requests)
    assert {k: tokens(v) for k, v in plain.items()} == {k: tokens(v) for k, v in fast.items()}
    assert engine.stats["drafts"] > 0


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_speculative_sampling_keeps_the_distribution(model, temperature):
    """Chi-square of the joint law of the second and third token against plain sampling's exact probabilities."""
    small = new_model(CONFIG.model_copy(update={"vocab_size": 32}), seed=4)
    with torch.no_grad():
        small.lm_head.weight.mul_(4.0)
    prompt = [3, 1, 4, 1, 5]
    engine = Engine(small, EngineConfig(max_running=64, max_length=32, drafts=3))
    samples = 4000
    outputs = run(engine, [(prompt, Sampling(max_tokens=3, temperature=temperature, seed=i)) for i in range(samples)])
    seen = Counter(tuple(tokens(o)) for o in outputs.values())
    firsts = {t[:2] for t in seen}
    rows = [prompt + list(pair) for pair in firsts]
    ids = torch.tensor(rows)
    with torch.no_grad():
        logits = small.lm_head(small(ids, small.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD)
        probs = (logits / temperature).softmax(-1)
    statistic, degrees = 0.0, 0
    for row, pair in enumerate(firsts):
        n = sum(count for key, count in seen.items() if key[:2] == pair)
        for token in range(32):
            expected = n * float(probs[row, -1, token])
            if expected >= 5:
                statistic += (seen[(*pair, token)] - expected) ** 2 / expected
                degrees += 1
    assert degrees > 20
    assert statistic < degrees + 4 * math.sqrt(2 * degrees), (statistic, degrees)


def test_next_turn_reuses_its_prefix_until_the_weights_change(model, tmp_path):
    engine = Engine(model, EngineConfig(max_running=4, max_length=96))
    prompt = list(range(40))
    first = run(engine, [(prompt, Sampling(max_tokens=5, temperature=0))])["0"]
    turn = prompt + tokens(first) + [1, 2, 3]
    second = run(engine, [(turn, Sampling(max_tokens=5, temperature=0))])["0"]
    assert second.cached_tokens == 32, "the full blocks of the 44 tokens that were computed"
    fresh = run(
        Engine(model, EngineConfig(max_running=4, max_length=96)), [(turn, Sampling(max_tokens=5, temperature=0))]
    )["0"]
    assert tokens(second) == tokens(fresh)
    engine.set_version(1)
    assert run(engine, [(turn, Sampling(max_tokens=5, temperature=0))])["0"].cached_tokens == 0


def test_a_prefix_may_be_as_stale_as_configured_and_its_age_is_that_of_its_oldest_part(model):
    engine = Engine(model, EngineConfig(max_running=4, max_length=96, stale_prefix=1))
    prompt, sampling = list(range(40)), Sampling(max_tokens=5, temperature=0)
    cached = []
    for version in (0, 1, 2, 2, 1, 1):
        if version != engine.version:
            engine.set_version(version)
        cached.append(run(engine, [(prompt, sampling)])["0"].cached_tokens)
    # At version 2 what version 1 went on with is still version 0's; a smaller number than before forgets everything.
    assert cached == [0, 32, 0, 32, 0, 32]


def test_a_turn_that_continues_beside_a_fresh_prompt_sees_all_its_keys(model):
    """Prefilled in one batch, as long as the fresh prompt: index of a query and its position differ."""
    engine = Engine(model, EngineConfig(max_running=4, max_length=160))
    fresh, turn = (torch.randint(0, 64, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (100, 70))
    run(engine, [(turn[:50], Sampling(max_tokens=1))])
    outputs = run(engine, [(turn, Sampling(max_tokens=20, seed=1)), (fresh, Sampling(max_tokens=20, seed=2))])
    assert outputs["0"].cached_tokens == 48
    for output, prompt in ((outputs["0"], turn), (outputs["1"], fresh)):
        scored = engine.score([prompt + tokens(output)])[0][len(prompt) - 1 :]
        assert [x for span in output.spans for x in span.logprobs] == pytest.approx(scored, abs=1e-4)


def test_group_members_share_the_prompt(model):
    engine = Engine(model, EngineConfig(max_running=8, max_length=96))
    prompt = list(range(50))
    outputs = run(engine, [(prompt, Sampling(max_tokens=8, seed=i)) for i in range(8)])
    assert sum(o.cached_tokens for o in outputs.values()) == 7 * 48


def test_running_requests_continue_across_an_update(tmp_path):
    old, new = new_model(CONFIG, seed=1), new_model(CONFIG, seed=2)
    save_checkpoint(new, tmp_path)
    engine = Engine(old, EngineConfig(max_running=4, max_length=96))
    engine.add([1, 2, 3], Sampling(max_tokens=20), "r")
    for _ in range(8):
        engine.step()
    engine.update_weights(tmp_path, 5)
    while engine.has_work:
        engine.step()
    spans = engine.result("r").spans
    assert [s.version for s in spans] == [0, 5] and [len(s.ids) for s in spans] == [8, 12]


def damaged(folder, kind: str) -> None:
    """Every name before the last stays good, so that copying as one goes would change most of the model."""
    file = folder / "model-00001-of-00001.safetensors"
    if kind == "torn file":
        file.write_bytes(file.read_bytes()[:-100])
        return
    tensors = load_file(file)
    last = [name for name, _ in to_hf(new_model(CONFIG, seed=2))][-1]
    if kind == "tensor missing":
        del tensors[last]
    elif kind == "scale missing":
        tensors[last] = tensors[last].to(torch.float8_e4m3fn)
    else:
        tensors[last] = tensors[last][:-1]
    save_file(tensors, file)


@pytest.mark.parametrize(
    "kind, told",
    [
        ("tensor missing", "is missing"),
        ("tensor too small", "the config says"),
        ("scale missing", "scale_inv is missing"),
        ("torn file", "cannot be read"),
    ],
)
def test_a_bad_update_changes_nothing(tmp_path, kind, told):
    save_checkpoint(new_model(CONFIG, seed=2), tmp_path)
    damaged(tmp_path, kind)
    engine = Engine(new_model(CONFIG, seed=1), EngineConfig(max_running=1, max_length=64))
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    with pytest.raises(UserError, match=told):
        engine.update_weights(tmp_path, 5)
    assert engine.version == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())


def test_bad_requests_are_refused(model):
    engine = Engine(model, EngineConfig(max_running=1, max_length=16))
    for prompt in ([], [64], [-1], [0] * 16):
        with pytest.raises(UserError):
            engine.add(prompt, Sampling(), "r")
    with pytest.raises(UserError, match="scalar head"):
        engine.reward([[1, 2]])


def test_abort_returns_what_there_is(model):
    engine = Engine(model, EngineConfig(max_running=1, max_length=64))
    engine.add([1, 2], Sampling(max_tokens=30), "a")
    engine.add([3, 4], Sampling(max_tokens=30), "b")
    engine.step()
    engine.step()
    engine.abort("a")
    engine.abort("b")
    assert engine.result("a").finish_reason == "abort" and engine.result("b").spans == []
    assert not engine.has_work


def test_load_engine_reads_a_checkpoint(model, tmp_path):
    save_checkpoint(model, tmp_path)
    engine = load_engine(tmp_path, EngineConfig(max_running=1, max_length=64))
    request = [(prompts(1)[0], Sampling(max_tokens=9, temperature=0))]
    assert tokens(run(engine, request)["0"]) == tokens(
        run(Engine(model, EngineConfig(max_running=1, max_length=64)), request)["0"]
    )


def test_prefill_groups_rows_of_similar_length():
    assert by_length([250, 9, 11, 240, 10, 260]) == [[1, 4, 2], [3, 0, 5]]
    assert by_length([30, 31, 32]) == [[0, 1, 2]]
    assert by_length([7]) == [[0]] and by_length([]) == []
    mixed = [3, 400, 5, 90, 80, 3, 2, 390]
    assert sorted(i for group in by_length(mixed) for i in group) == list(range(8))


def test_weights_rounded_to_fp8_are_those_of_an_fp8_checkpoint_also_after_an_update(tmp_path):
    wide = CONFIG.model_copy(update={"hidden_size": 160, "moe_intermediate_size": 136})
    for name, seed in (("a", 1), ("b", 2)):
        save_checkpoint(new_model(wide, seed=seed), tmp_path / name)
        save_checkpoint(new_model(wide, seed=seed), tmp_path / f"{name}-fp8", "fp8")
    engine = load_engine(tmp_path / "a", EngineConfig(max_running=1, max_length=64, values="fp8"))
    ids = list(range(40))
    for name in ("a", "b"):
        if name == "b":
            engine.update_weights(tmp_path / "b", 1)
        stored = load_engine(tmp_path / f"{name}-fp8", EngineConfig(max_running=1, max_length=64))
        plain = load_engine(tmp_path / name, EngineConfig(max_running=1, max_length=64))
        rounded = engine.score([ids])[0]
        assert rounded == pytest.approx(stored.score([ids])[0], abs=1e-5)
        assert max(abs(a - b) for a, b in zip(rounded, plain.score([ids])[0])) > 1e-4
    gap = rounding_gap(tmp_path / "a", tokens=32)
    assert 0 < gap.mean <= gap.largest < 1 and gap.tokens == 32
    assert rounding_gap(tmp_path / "a", "bfloat16", tokens=32).largest == 0
