"""A small model with a top-k that short prompts outgrow, and how these tests run an engine."""

import torch

from arcforge.infer.engine import Engine
from arcforge.model.config import ModelConfig

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24, kv_lora_rank=16,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48, moe_intermediate_size=16,
    n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=16,
)  # fmt: skip


def run(engine: Engine, requests) -> dict:
    for i, (prompt, sampling) in enumerate(requests):
        engine.add(prompt, sampling, str(i))
    outputs = {}
    for _ in range(1000):
        for request_id in engine.step():
            outputs[request_id] = engine.result(request_id)
        if not engine.has_work:
            return outputs
    raise AssertionError("the engine did not finish")


def tokens(output) -> list[int]:
    return [i for span in output.spans for i in span.ids]


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(9)
    return [torch.randint(0, 64, (5 + 7 * i % 23,), generator=generator).tolist() for i in range(count)]
