"""Bit for bit the same, whatever else is in the batch; and the default mode is not, or the test could not fail."""

import random

import pytest
import torch
from running import run, tokens

from arcforge.core.messages import Sampling
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model

WIDE = ModelConfig(
    vocab_size=512, hidden_size=96, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=64, kv_lora_rank=80,
    qk_nope_head_dim=24, qk_rope_head_dim=16, v_head_dim=40, intermediate_size=200, moe_intermediate_size=72,
    n_routed_experts=8, num_experts_per_tok=2, index_n_heads=4, index_head_dim=32, index_topk=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def wide():
    return new_model(WIDE, seed=5)


def random_requests(seed: int, count: int) -> list:
    choose = random.Random(seed)
    return [
        (
            choose.choices(range(512), k=choose.randint(1, 150)),
            Sampling(
                max_tokens=choose.randint(1, 60), temperature=choose.choice([0.0, 0.8, 1.0]), seed=i, top_logprobs=3
            ),
        )
        for i in range(count)
    ]


def told(output) -> tuple:
    return tokens(output), [x for span in output.spans for x in span.logprobs], output.top_logprobs


def together(model, mine, mates, deterministic: bool, **config) -> list:
    engine = Engine(model, EngineConfig(max_running=24, max_length=256, deterministic=deterministic, **config))
    outputs = run(engine, [*mates, *mine])
    return [told(outputs[str(len(mates) + i)]) for i in range(len(mine))]


@pytest.mark.parametrize(
    "threads", [1, pytest.param(2, marks=pytest.mark.slow)]
)  # two threads on busy cores wait for each other
def test_batch_mates_change_no_bit(wide, threads):
    mine = random_requests(0, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [together(wide, [one], [], deterministic=True)[0] for one in mine]
        for mates in (3, 7, 19):
            assert together(wide, mine, random_requests(mates, mates), deterministic=True) == alone, f"{mates} mates"
    finally:
        torch.set_num_threads(before)


def test_neither_chunks_nor_drafts_of_others_nor_a_cached_prefix_nor_preemption_change_a_bit(wide):
    mine, mates = random_requests(0, 3), random_requests(4, 9)
    alone = [together(wide, [one], [], deterministic=True)[0] for one in mine]
    assert together(wide, mine, mates, True, prefill_tokens=48) == alone
    assert together(wide, mine, mates, True, cache_tokens=512) == alone
    engine = Engine(wide, EngineConfig(max_running=24, max_length=256, deterministic=True))
    run(engine, mine)
    again = run(engine, mine)
    assert [told(again[str(i)]) for i in range(3)] == alone
    assert sum(again[str(i)].cached_tokens for i in range(3)) > 0


def test_drafting_gives_the_same_greedy_log_probabilities(wide):
    mine = [(p, s.model_copy(update={"temperature": 0.0})) for p, s in random_requests(6, 3)]
    assert together(wide, mine, random_requests(7, 5), True, drafts=3) == together(wide, mine, [], True)


def test_the_default_mode_differs_in_some_bit(wide):
    mine = random_requests(0, 4)
    alone = [together(wide, [one], [], deterministic=False)[0][1] for one in mine]
    mixed = [row[1] for row in together(wide, mine, random_requests(19, 19), deterministic=False)]
    assert mixed != alone


def test_both_modes_compute_the_same_numbers(wide):
    mine = [(p, s.model_copy(update={"temperature": 0.0})) for p, s in random_requests(0, 4)]
    for exact, fast in zip(together(wide, mine, [], True), together(wide, mine, [], False), strict=True):
        assert exact[0] == fast[0] and exact[1] == pytest.approx(fast[1], abs=1e-4)
