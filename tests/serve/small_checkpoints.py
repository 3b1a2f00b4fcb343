"""Checkpoint folders of one small model, tokenizer included, with as many sets of weights as a test wants."""

from __future__ import annotations

from pathlib import Path

from arcforge.chat.tokenizer import Tokenizer
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model


def small_checkpoints(folders: list[Path]) -> list[Path]:
    tokenizer = Tokenizer.train(["hello world think about it"] * 3, 300)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24,
        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48,
        moe_intermediate_size=16, n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=16,
    )  # fmt: skip
    for seed, folder in enumerate(folders):
        save_checkpoint(new_model(config, seed=seed), folder)
        tokenizer.save(folder)
    return folders
