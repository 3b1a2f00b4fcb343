"""Shared-prefix packing: every token once, and the same numbers as rows of one document each."""

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.core.documents import PADDING, SHARED
from arcforge.data.batches import Batch
from arcforge.data.packing import PackedRows, Tokens, pack
from arcforge.data.sharing import pack_shared
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model


def documents(rng: random.Random, count: int) -> list[Tokens]:
    """Three prompts over one system prompt, answers of different lengths."""
    system = [rng.randrange(8) for _ in range(rng.randint(2, 12))]
    made = []
    for _ in range(count):
        prompt = [*system, rng.randrange(3), *[9] * rng.randint(1, 3)]
        answer = [rng.randrange(10, 16) for _ in range(rng.randint(1, 9))]
        made.append(Tokens.of(prompt + answer, [False] * len(prompt) + [True] * len(answer)))
    return made


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(32, 80), st.booleans())
def test_every_document_can_be_read_back(seed, count, length, given_order):
    docs = documents(random.Random(seed), count)
    rows, shared = pack_shared(docs, length, 0, order=range(count) if given_order else None)
    for i, document in enumerate(docs):
        (places,) = np.nonzero((rows.document_ids == i).any(axis=1))
        assert len(places) == 1
        row = places[0]
        prefix = rows.ids[row][rows.document_ids[row] == SHARED]
        mine = rows.document_ids[row] == i
        assert [*prefix, *rows.ids[row][mine]] == document.ids.tolist()
        assert len(prefix) == shared[i]
        assert rows.positions[row][mine].tolist() == list(range(shared[i], len(document)))
        assert rows.loss_mask[row][mine].sum() == document.mask.sum()
    assert not rows.loss_mask[rows.document_ids == SHARED].any()
    assert (rows.document_ids != PADDING).sum() <= sum(map(len, docs))


def test_log_probabilities_are_those_of_separate_rows():
    config = ModelConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48, moe_intermediate_size=16,
        n_routed_experts=4, index_n_heads=8, index_head_dim=16, index_topk=8,
    )  # fmt: skip
    model = new_model(config, 0).eval()
    docs = documents(random.Random(1), 12)
    shared_rows, _ = pack_shared(docs, 64, 0)
    alone = PackedRows.concatenate([pack([d], 64, "truncate") for d in docs])
    assert len(shared_rows) < 6 and (shared_rows.document_ids == SHARED).any()

    def logprobs(rows: PackedRows) -> list[float]:
        batch = Batch.of(rows)
        layout = model.layout(batch.document_ids_BT, sparse=True, positions_BT=batch.positions_BT)
        targets = batch.targets()
        wanted = targets != -100
        with torch.no_grad():
            hidden = model(batch.ids_BT, layout).hidden_BTD
        return sorted(model.token_logprobs(hidden[wanted], targets[wanted]).tolist())

    assert np.allclose(logprobs(shared_rows), logprobs(alone), atol=1e-4)
