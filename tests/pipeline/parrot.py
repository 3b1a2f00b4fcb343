"""A real checkpoint that says what it is told to.

Attention and MLPs add nothing to the residual stream and embeddings are one-hot, so that the head alone decides: after each
token comes the one that follows it in TEXT. No token may occur twice, therefore. Control tokens are written by name.
"""

import re
from itertools import pairwise

import torch

from arcforge.chat.tokenizer import CONTROL_TOKENS, SMALLEST_VOCABULARY, Tokenizer
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.train.context import write_checkpoint

CONFIG = ModelConfig(
    vocab_size=SMALLEST_VOCABULARY, hidden_size=SMALLEST_VOCABULARY, num_hidden_layers=2, num_attention_heads=2,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, intermediate_size=16,
    moe_intermediate_size=16, n_routed_experts=2, index_n_heads=2, index_head_dim=8, index_topk=32,
)  # fmt: skip
LOUD = 100.0


@torch.no_grad()
def parrot(folder, text):
    """Write the checkpoint; `text` begins with the token that ends the prompt and ends with a stop token."""
    tokenizer = Tokenizer.train([""], SMALLEST_VOCABULARY)
    model = new_model(CONFIG, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "down_proj")):
            parameter.zero_()
    model.embed_tokens.weight.copy_(torch.eye(SMALLEST_VOCABULARY))
    model.lm_head.weight.zero_()
    for before, after in pairwise(ids_of(text, tokenizer)):
        model.lm_head.weight[after, before] = LOUD
    write_checkpoint(model, tokenizer, folder)
    return folder


def ids_of(text, tokenizer):
    names = "|".join(map(re.escape, CONTROL_TOKENS))
    ids = []
    for piece in re.split(f"({names})", text):
        ids += [tokenizer.id(piece)] if piece in CONTROL_TOKENS else tokenizer.encode(piece)
    assert len(set(ids)) == len(ids), "a token occurs twice"
    return ids
