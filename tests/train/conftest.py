import random

import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.metrics import JsonLines
from arcforge.envs.reason.family import ReasonFamily
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.train.context import Context, write_checkpoint


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [m.content + " " + (m.reasoning or "") for i in range(60) for m in ReasonFamily().demonstration(i).messages]
    return Tokenizer.train([*texts, "the red fox says yes or no to the blue cat"], 400)


@pytest.fixture(scope="session")
def config(tokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24,
        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48,
        moe_intermediate_size=16, n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=16,
    )  # fmt: skip


@pytest.fixture
def context(tokenizer, tmp_path) -> Context:
    return Context(tmp_path / "stage", tokenizer, JsonLines(tmp_path / "metrics.jsonl"), seed=3)


@pytest.fixture(scope="session")
def source(config, tokenizer, tmp_path_factory):
    """A checkpoint to start a stage from."""
    folder = tmp_path_factory.mktemp("source")
    write_checkpoint(new_model(config, seed=1), tokenizer, folder)
    return folder


@pytest.fixture
def rng() -> random.Random:
    return random.Random(5)
