"""Sampling options against their definitions, and what is told beside the tokens."""

import math

import pytest
import torch
from running import CONFIG, prompts, run, tokens

from arcforge.core.errors import EngineError
from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.infer.sampler import distribution, likeliest
from arcforge.model.initialise import new_model

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.5, -1.0, -3.0]])


def kept(**options) -> list[int]:
    return distribution(LOGITS, [Sampling(**options)])[0].nonzero().flatten().tolist()


def test_filters_keep_what_their_definitions_say():
    p = LOGITS.softmax(-1)[0]
    assert kept() == [0, 1, 2, 3, 4, 5]
    assert kept(top_k=2) == [0, 1] and kept(top_k=3) == [0, 1, 2], "the lower id wins a tie"
    assert kept(top_k=100) == kept(top_k=0) == kept(top_p=1.0)
    assert kept(min_p=float(p[1] / p[0]) - 1e-4) == [0, 1]
    assert kept(top_p=float(p[0]) - 1e-4) == [0] and kept(top_p=float(p[0]) + 1e-4) == [0, 1]
    assert kept(logit_bias={5: 100.0}, top_k=1) == [5] and kept(temperature=0, logit_bias={0: -9.0}) == [1]
    # top_p counts the mass of what top_k left.
    assert kept(top_k=2, top_p=float(p[0] / (p[0] + p[1])) - 1e-4) == [0]
    assert distribution(LOGITS, [Sampling(top_k=3, min_p=0.1, top_p=0.9)]).sum() == pytest.approx(1)


def test_rows_of_a_batch_keep_their_own_options():
    both = distribution(LOGITS.expand(3, -1), [Sampling(top_k=1), Sampling(), Sampling(temperature=0)])
    assert torch.equal(both[1:2], LOGITS.softmax(-1))
    assert both[0].nonzero().flatten().tolist() == both[2].nonzero().flatten().tolist() == [0]


def test_the_likeliest_ids_are_those_of_the_sampled_distribution_and_no_impossible_ones():
    samplings = [Sampling(top_logprobs=4, top_k=2), Sampling(top_logprobs=2, temperature=0), Sampling()]
    rows = likeliest(LOGITS.expand(3, -1), distribution(LOGITS.expand(3, -1), samplings), samplings)
    two = LOGITS[0, :2].log_softmax(-1).tolist()
    assert rows[0] == [(0, pytest.approx(two[0], abs=1e-5)), (1, pytest.approx(two[1], abs=1e-5))]
    whole = LOGITS[0].log_softmax(-1).tolist()
    assert rows[1] == [(0, pytest.approx(whole[0], abs=1e-5)), (1, pytest.approx(whole[1], abs=1e-5))]
    assert rows[2] == []


@pytest.mark.parametrize("prefill", [16, 8192])
def test_prompt_logprobs_are_the_trainers(model, prefill):
    engine = Engine(model, EngineConfig(max_running=4, max_length=96, prefill_tokens=prefill))
    wanted = Sampling(max_tokens=0, prompt_logprobs=True)
    for _ in range(2):  # the second time the prefix is cached, and not used
        outputs = run(engine, [(p, wanted) for p in prompts(5)])
        for i, prompt in enumerate(prompts(5)):
            output = outputs[str(i)]
            assert output.prompt_logprobs == pytest.approx(engine.score([prompt])[0], abs=1e-4)
            assert output.spans == [] and output.finish_reason == "length" and output.cached_tokens == 0
    both = run(engine, [(prompts(1)[0], Sampling(max_tokens=6, prompt_logprobs=True))])["0"]
    whole = engine.score([prompts(1)[0] + tokens(both)])[0]
    assert both.prompt_logprobs + both.spans[0].logprobs == pytest.approx(whole, abs=1e-4)


def test_prompt_logprobs_survive_preemption(model):
    requests = [(p, Sampling(max_tokens=50, prompt_logprobs=True, seed=i)) for i, p in enumerate(prompts(8))]
    engine = Engine(model, EngineConfig(max_running=8, max_length=96, cache_tokens=160))
    outputs = run(engine, requests)
    assert engine.stats["preemptions"] > 0
    for i, (prompt, _) in enumerate(requests):
        assert outputs[str(i)].prompt_logprobs == pytest.approx(engine.score([prompt])[0], abs=1e-4)


def test_top_logprobs_stand_beside_every_token(model):
    for drafts in (0, 2):
        engine = Engine(model, EngineConfig(max_running=2, max_length=96, drafts=drafts))
        output = run(engine, [(prompts(1)[0], Sampling(max_tokens=20, seed=3, top_logprobs=64))])["0"]
        pairs = zip(tokens(output), output.spans[0].logprobs, output.top_logprobs, strict=True)
        for token, logprob, top in pairs:
            assert dict(top)[token] == logprob and len(top) == 64
            assert sum(math.exp(value) for _, value in top) == pytest.approx(1, abs=1e-3)
            assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)


def test_weights_that_are_no_numbers_are_an_error_not_tokens():
    broken = new_model(CONFIG, seed=1)
    with torch.no_grad():
        broken.lm_head.weight[3] = float("nan")
    engine = Engine(broken, EngineConfig(max_running=1, max_length=64))
    engine.add([1, 2, 3], Sampling(), "r")
    with pytest.raises(EngineError, match="not finite"):
        engine.step()
