"""Sparse attention of the whole model: gathered keys, chunks of queries, shared selections, and who gets which gradient."""

import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.model import attention
from arcforge.model.cache import BLOCK, PagedCache
from arcforge.model.config import ModelConfig
from arcforge.model.hf_config import hf_config, is_full, share_pattern
from arcforge.model.initialise import new_model

CONFIG = ModelConfig(
    vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=40, kv_lora_rank=24,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20, intermediate_size=64, moe_intermediate_size=32,
    n_routed_experts=8, num_experts_per_tok=2, index_n_heads=16, index_head_dim=16, index_topk=12,
)  # fmt: skip
SHARING = [(), ("full", "shared", "shared")]
T = 50


def of_types(types, **changes):
    return ModelConfig.model_validate({**CONFIG.model_dump(), **changes, "indexer_types": types})


def inputs():
    """Two rows: one document, and three packed ones behind a shared prefix, with padding."""
    ids = torch.randint(0, 96, (2, T), generator=torch.Generator().manual_seed(1))
    packed = [-2] * 4 + [0] * 20 + [1] * 3 + [2] * 19 + [-1] * 4
    positions = [*range(4), *range(4, 24), *range(4, 7), *range(4, 23), *range(4)]
    return ids, torch.tensor([[0] * T, packed]), torch.tensor([[*range(T)], positions])


def run(model, loss=True):
    """Hidden states, divergences and all gradients of a loss made of both."""
    ids, documents, positions = inputs()
    model.zero_grad()
    layout = model.layout(documents, sparse=True, indexer_loss=loss, positions_BT=positions)
    features = model(ids, layout)
    total = features.hidden_BTD[documents >= 0].square().mean()
    if loss:
        total = total + features.indexer_kl_BT[documents >= 0].mean()
    total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    kl = features.indexer_kl_BT[documents >= 0].detach() if loss else None
    return features.hidden_BTD[documents >= 0].detach(), kl, gradients


def same(one, other, atol=2e-5):
    assert torch.allclose(one[0], other[0], atol=atol) and torch.allclose(one[1], other[1], atol=atol)
    assert one[2].keys() == other[2].keys() and len(one[2]) > 40
    for name, gradient in one[2].items():
        assert torch.allclose(gradient, other[2][name], atol=atol), name


@pytest.mark.parametrize("types", SHARING, ids=["all full", "shared"])
def test_gathered_attention_is_masked_attention(monkeypatch, types):
    model = new_model(of_types(types), seed=3)
    masked = run(model)
    monkeypatch.setattr(attention, "GATHER_FROM", 0)
    monkeypatch.setattr(attention, "GATHER_RATIO", 0)
    same(run(model), masked)


@pytest.mark.parametrize("window", [0, 5])
def test_the_first_key_is_the_first_that_a_query_sees(window):
    model = new_model(CONFIG, seed=0)
    documents = torch.tensor([[0] * 20 + [1] * 3 + [2] * 19 + [-1] * 8, [7] * 11 + [3] * 39])
    layout = model.layout(documents)
    for start in range(T):
        seen = layout.visible(start, T, window).flatten(0, 1).any(0)
        assert layout.first_key(start, window) == int(seen.int().argmax())
    _, shared, positions = inputs()
    assert model.layout(shared, positions_BT=positions).first_key(45, window) == 0, "a prefix is read from everywhere"


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("budget", [4 * 2 * T * 7, 1])
def test_a_small_budget_takes_chunks_and_changes_nothing(monkeypatch, budget, gathers):
    model = new_model(of_types(SHARING[1]), seed=3)
    whole = run(model)
    monkeypatch.setattr(attention, "GATHER_FROM", 0 if gathers else 10**9)
    monkeypatch.setattr(attention, "GATHER_RATIO", 0)
    model.score_bytes = budget
    same(run(model), whole)


@pytest.mark.parametrize("gathers", [False, True])
def test_the_language_loss_never_reaches_the_indexer_nor_its_loss_the_trunk(monkeypatch, gathers):
    monkeypatch.setattr(attention, "GATHER_FROM", 0 if gathers else 10**9)
    monkeypatch.setattr(attention, "GATHER_RATIO", 0)
    model = new_model(CONFIG, seed=3)
    ids, documents, positions = inputs()
    for loss_of, reached in (("hidden", False), ("indexer", True)):
        model.zero_grad()
        features = model(ids, model.layout(documents, sparse=True, indexer_loss=True, positions_BT=positions))
        loss = features.hidden_BTD.square().mean() if loss_of == "hidden" else features.indexer_kl_BT.mean()
        loss.backward()
        for name, parameter in model.named_parameters():
            if name.startswith(("mtp", "lm_head")):
                continue
            has = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            wanted = reached if "indexer" in name else not reached
            assert has == wanted, (loss_of, name)


@pytest.mark.parametrize("types", SHARING, ids=["all full", "shared"])
@pytest.mark.parametrize("budget", [512 << 20, 4 * 2 * 5 * 40])
def test_cached_decode_is_the_full_forward(types, budget):
    model = new_model(of_types(types), seed=3).eval()
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        full = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
        model.score_bytes = budget
        cache, hidden, tables = PagedCache(model.config, blocks=12), [], torch.tensor([[7, 2, 9], [4, 11, 1]])
        for start, end in [(0, 17), (17, 18), (18, 25), *((i, i + 1) for i in range(25, 40))]:
            positions = torch.arange(start, end).expand(2, -1)
            view, layout = model.cache_view(cache, tables[:, : -(-end // BLOCK)], positions)
            hidden.append(model.decode(ids[:, start:end], layout, view))
    assert torch.allclose(torch.cat(hidden, 1), full, atol=1e-4)


def test_a_shared_layer_owns_no_indexer_and_reads_what_the_layer_before_read():
    model = new_model(of_types(SHARING[1]), seed=3).eval()
    assert [layer.self_attn.indexer is None for layer in model.layers] == [False, True, True]
    assert model.mtp.self_attn.indexer is not None
    ids = torch.randint(0, 96, (1, T), generator=torch.Generator().manual_seed(2))
    before = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
    with torch.no_grad():
        model.layers[0].self_attn.indexer.wk.weight.neg_()
    after = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
    assert torch.equal(before[:, :12], after[:, :12]) and (before - after)[:, 20:].abs().max() > 1e-3


def test_the_two_numbers_of_glm52_are_its_types():
    full = [layer for layer in range(78) if is_full(layer, 4, 3)]
    assert full == [0, 1, 2, *range(6, 75, 4)] and len(full) == 21
    types = tuple("full" if layer in full else "shared" for layer in range(78))
    config = of_types(types, num_hidden_layers=78)
    freq, offset = share_pattern(config)
    assert [is_full(layer, freq, offset) for layer in range(78)] == [kind == "full" for kind in types]
    assert share_pattern(CONFIG) == (1, 2)


def test_a_pattern_that_two_numbers_cannot_tell_is_not_saved():
    types = ("full", "shared", "full", "full", "shared", "full")
    with pytest.raises(UserError, match="no index_topk_freq and index_skip_topk_offset describe them"):
        hf_config(of_types(types, num_hidden_layers=6), {})
