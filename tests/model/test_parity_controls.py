"""Negative controls: the comparison with transformers must fail for every mistake that other implementations have made."""

import copy

import pytest
import torch
from parity import build, divergence, inputs, logits

from arcforge.model import attention, indexer
from arcforge.model.moe import Router


def half_split(x_BTHP, turns_BTP, alone=False):
    """RoPE on halves instead of neighbouring pairs."""
    cos, sin = turns_BTP.real.unsqueeze(2), turns_BTP.imag.unsqueeze(2)
    first, second = x_BTHP.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def without_relu(q, k, weights, first=None):
    return torch.einsum("btjd,bsd,btj->bts", q, k, weights) * q.shape[-1] ** -0.5


def indexer_half_split(monkeypatch, model):
    monkeypatch.setattr(indexer, "rotate", half_split)


def attention_half_split(monkeypatch, model):
    monkeypatch.setattr(attention, "rotate", half_split)


def no_relu(monkeypatch, model):
    monkeypatch.setattr(indexer, "index_scores", without_relu)


def no_key_bias(monkeypatch, model):
    for layer in model.layers:
        if layer.self_attn.indexer is not None:
            layer.self_attn.indexer.k_norm.bias.zero_()


def no_router_bias(monkeypatch, model):
    for router in model.routers():
        router.e_score_correction_bias.zero_()


def bias_in_the_weights(monkeypatch, model):
    """The bias that only chooses also weighs."""
    forward = Router.forward

    def biased(self, x_ND):
        weights, experts, scores = forward(self, x_ND)
        shifted = scores.gather(1, experts) + self.e_score_correction_bias[experts]
        return shifted / shifted.sum(-1, keepdim=True) * self.config.routed_scaling_factor, experts, scores

    monkeypatch.setattr(Router, "forward", biased)


def other_latent_eps(monkeypatch, model):
    for layer in model.layers:
        layer.self_attn.q_a_layernorm.eps = layer.self_attn.kv_a_layernorm.eps = 1e-5


def raw_query_latents(monkeypatch, model):
    """The indexer reads the query latents before their norm."""
    queries = indexer.Indexer.queries

    def unnormed(self, x_BTD, q_latent_BTR, layout):
        owner = next(layer.self_attn for layer in model.layers if layer.self_attn.indexer is self)
        return queries(self, x_BTD, owner.q_a_proj(x_BTD), layout)

    monkeypatch.setattr(indexer.Indexer, "queries", unnormed)


def selection_before_the_mask(monkeypatch, model):
    choose = attention.select_topk
    monkeypatch.setattr(
        attention,
        "select_topk",
        lambda s, allowed, k: choose(s, torch.ones_like(allowed), k) & allowed | first_key(allowed),
    )


def first_key(allowed):
    """A query that would see nothing sees the first key, so that the mistake gives numbers."""
    return torch.zeros_like(allowed).index_fill(2, torch.tensor([0]), True)


MISTAKES = [
    ("beyond top-k", indexer_half_split),
    ("beyond top-k", attention_half_split),
    ("beyond top-k", no_relu),
    ("beyond top-k", no_key_bias),
    ("beyond top-k", no_router_bias),
    ("beyond top-k", bias_in_the_weights),
    ("beyond top-k", raw_query_latents),
    ("beyond top-k", selection_before_the_mask),
    ("small latents", other_latent_eps),
    ("expert groups", no_router_bias),
    ("shared indexers", indexer_half_split),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    made = {}

    def of(case):
        if case not in made:
            made[case] = build(case, tmp_path_factory.mktemp(case.replace(" ", "-")) / "checkpoint")
        return made[case]

    return of


@pytest.mark.parametrize(("case", "mistake"), MISTAKES, ids=lambda value: getattr(value, "__name__", value))
@torch.no_grad()
def test_the_comparison_notices(pairs, case, mistake, monkeypatch):
    pair, ids = pairs(case), inputs(case)
    theirs, model = pair.oracle(ids).logits, copy.deepcopy(pair.model)
    assert torch.allclose(logits(model, ids), theirs, atol=1e-4)
    mistake(monkeypatch, model)
    wrong = logits(model, ids)
    assert not torch.allclose(wrong, theirs, atol=1e-4)
    assert divergence(wrong, theirs) > 1e-4, "a mistake of this kind is no rounding"
