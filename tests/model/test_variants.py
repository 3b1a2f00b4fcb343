"""Conversions of a trained model into the variants of the report's comparison, each against an independent computation."""

import math

import pytest
import torch
import torch.nn.functional as F

from arcforge.core.documents import SHARED
from arcforge.kernels.delta_rule.naive import delta_rule_by_token
from arcforge.kernels.select import document_starts
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.model.variants import converted, whole_projections

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "q_lora_rank": 24,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12, "intermediate_size": 48,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 8,
}  # fmt: skip
KINDS = ("window", "gqa", "gdn", "simple_gdn")
DOCUMENTS = torch.tensor([[0] * 9 + [1] * 13 + [-1] * 2, [0] * 3 + [1] * 2 + [2] * 19])


@pytest.fixture(scope="module")
def model():
    return new_model(ModelConfig(**SIZES), seed=3).eval()


def with_layer(model, kind, layer=1):
    types = ["full"] * 3
    types[layer] = kind
    return converted(model, types, window=5 if kind == "window" else 0, key_value_heads=2 if kind == "gqa" else 1)


def ids():
    return torch.randint(0, 64, DOCUMENTS.shape, generator=torch.Generator().manual_seed(1))


def features(model, tokens, documents=DOCUMENTS, sparse=False):
    with torch.no_grad():
        return model(tokens, model.layout(documents, sparse=sparse)).hidden_BTD


def attention_of(model, x, layer=1):
    with torch.no_grad():
        return model.layers[layer].self_attn(x, model.layout(DOCUMENTS)).out_BTD


def stream(seed=2):
    return torch.randn(*DOCUMENTS.shape, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_the_layer_is_carried_over(model, kind):
    made = with_layer(model, kind)
    assert made.config.attention_types == ("full", kind, "full") and not made.training
    theirs, kept = model.state_dict(), 0
    for name, tensor in made.state_dict().items():
        if name in theirs and tensor.shape == theirs[name].shape:
            assert torch.equal(tensor, theirs[name]), name
            kept += 1
    lost = {"window": 0, "simple_gdn": 5, "gqa": 11, "gdn": 11}[kind]
    assert kept == len(theirs) - lost
    assert count(made.config).total == sum(p.numel() for p in made.parameters()) + 3 * 4
    assert count(made.config).mtp == count(model.config).mtp


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_another_document_or_the_future(model, kind):
    made, tokens = with_layer(model, kind), ids()
    before = features(made, tokens)
    tokens[0, 8] = (tokens[0, 8] + 1) % 64  # the last token of a document
    tokens[1, 23] = (tokens[1, 23] + 1) % 64
    after = features(made, tokens)
    assert torch.allclose(before[0, :8], after[0, :8], atol=1e-5) and torch.allclose(
        before[0, 9:], after[0, 9:], atol=1e-5
    )
    assert torch.allclose(before[1, :23], after[1, :23], atol=1e-5) and not torch.allclose(before[0, 8], after[0, 8])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_the_layer_trains(model, kind):
    made = with_layer(model, kind).train()
    made(ids(), made.layout(DOCUMENTS, sparse=True)).hidden_BTD.square().sum().backward()
    idle = [n for n, p in made.layers[1].self_attn.named_parameters() if p.grad is None and "indexer" not in n]
    assert not idle
    assert matrix_specs(made).keys() == dict(made.named_parameters()).keys()


def test_grouped_queries_are_plain_attention_over_averaged_heads(model):
    made, x = with_layer(model, "gqa").layers[1].self_attn, stream()
    layout = model.layout(DOCUMENTS)
    q, k, v = (projection(x).unflatten(-1, (-1, size)) for projection, size in (
        (made.q_proj, 16), (made.k_proj, 16), (made.v_proj, 12)
    ))  # fmt: skip

    def rotated(heads):
        """Pair i of the last 8 dimensions turned by position * theta^(-i / 4), written as complex numbers."""
        angles = torch.arange(24.0)[:, None] * 10000.0 ** (-torch.arange(4.0) / 4)
        pairs = torch.view_as_complex(heads[..., 8:].unflatten(-1, (4, 2)).contiguous())
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None])
        return torch.cat((heads[..., :8], turned.flatten(-2)), -1)

    q, k = rotated(q), rotated(k)
    expected = torch.zeros(2, 24, 4, 12)
    for b in range(2):
        for t in range(24):
            seen = [s for s in range(t + 1) if DOCUMENTS[b, s] == DOCUMENTS[b, t]]
            for h in range(4):
                weights = (k[b, seen, h // 2] @ q[b, t, h] / 4).softmax(0)
                expected[b, t, h] = weights @ v[b, seen, h // 2]
    assert torch.allclose(made(x, layout).out_BTD, made.o_proj(expected.flatten(2)), atol=1e-5)
    whole_q, whole_k, _ = whole_projections(model.layers[1].self_attn, model.layers[1].input_layernorm)
    assert torch.equal(made.q_proj.weight, whole_q.flatten(0, 1))
    assert torch.allclose(made.k_proj.weight[16:], whole_k[2:].mean(0))


def test_as_many_key_value_heads_as_heads_come_close_to_the_full_model(model):
    """What the conversion loses then is the norm inside of the projections; for random input its expected size is near."""
    full, x = attention_of(model, stream()), stream()
    made = converted(model, ["full", "gqa", "full"], key_value_heads=4)
    error = (attention_of(made, x) - full).norm() / full.norm()
    averaged = (attention_of(with_layer(model, "gqa"), x) - full).norm() / full.norm()
    assert error < 0.3 < 0.5 < averaged


def test_gated_delta_net_token_by_token(model):
    made, x = with_layer(model, "gdn").layers[1].self_attn, stream()
    with torch.no_grad():
        for conv in (made.q_conv, made.k_conv, made.v_conv):
            conv.weight.normal_(generator=torch.Generator().manual_seed(4))
        made.o_norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(5))
    out = made(x, model.layout(DOCUMENTS)).out_BTD

    def convolved(conv, projected):
        result = torch.zeros_like(projected)
        for b in range(2):
            for t in range(24):
                for back in range(4):
                    if t >= back and DOCUMENTS[b, t] == DOCUMENTS[b, t - back]:
                        result[b, t] += conv.weight[:, 0, 3 - back] * projected[b, t - back]
        return F.silu(result).unflatten(-1, (4, -1))

    q, k, v = (convolved(c, p(x)) for c, p in (
        (made.q_conv, made.q_proj), (made.k_conv, made.k_proj), (made.v_conv, made.v_proj)
    ))  # fmt: skip
    decay = -made.A_log.exp() * F.softplus(made.a_proj(x) + made.dt_bias)
    unit = [heads / heads.norm(dim=-1, keepdim=True) for heads in (q, k)]
    read, _ = delta_rule_by_token(unit[0] / 4, unit[1], v, decay, made.b_proj(x).sigmoid(), DOCUMENTS)
    normed = read * (read.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).rsqrt() * made.o_norm.weight
    expected = made.o_proj((normed * F.silu(made.g_proj(x)).unflatten(-1, (4, -1))).flatten(2))
    assert torch.allclose(out, expected, atol=1e-4)


def test_decays_begin_in_the_ranges_of_the_papers_code(model):
    made = with_layer(model, "gdn").layers[1].self_attn
    assert made.A_log.exp()[[0, -1]].tolist() == pytest.approx([1.0, 16.0])
    assert F.softplus(made.dt_bias)[[0, -1]].tolist() == pytest.approx([1e-3, 1e-1], rel=1e-3)


def test_simple_gdn_answers_a_repeated_key_with_its_last_value(model):
    """b = 1 and unit keys: reading with the key that was just written gives back its value, whatever was there before."""
    made, x = with_layer(model, "simple_gdn").layers[1].self_attn, stream()
    layout = model.layout(DOCUMENTS)
    _, q_nope, q_rope = made._queries(x, layout)
    k, v = (heads.transpose(1, 2) for heads in made._expand(*made._latents(x, layout)))
    unit = [heads / heads.norm(dim=-1, keepdim=True) for heads in (torch.cat((q_nope, q_rope), -1), k)]
    slowest, fastest = math.log1p(-(2**-12)), math.log1p(-(2**-5))
    decay = torch.tensor([fastest, *[0.0] * 2, slowest])
    decay[1:3] = torch.log1p(-(2.0 ** -torch.tensor([5 + 7 / 3, 5 + 14 / 3])))
    ones = torch.ones(2, 24, 4)
    expected, _ = delta_rule_by_token(*unit, v, decay.expand(2, 24, 4), ones, DOCUMENTS)
    assert torch.allclose(made(x, layout).out_BTD, made.o_proj(expected.flatten(2)), atol=1e-5)
    itself, _ = delta_rule_by_token(unit[1], unit[1], v, decay.expand(2, 24, 4), ones, DOCUMENTS)
    assert torch.allclose(itself, v, atol=1e-5)


@pytest.mark.parametrize("kind", ["gdn", "simple_gdn"])
def test_shared_prefixes_are_refused_by_layers_with_a_state(model, kind):
    documents = torch.tensor([[SHARED] * 4 + [0] * 10 + [1] * 10])
    with pytest.raises(ValueError, match="share a prefix"):
        features(with_layer(model, kind), ids()[:1], documents)


def test_only_full_attention_is_converted(model):
    with pytest.raises(ValueError, match="only full attention can be converted"):
        converted(with_layer(model, "gdn"), ["full", "gqa", "full"])


def test_document_starts_of_rows_laid_end_to_end():
    assert document_starts(None, 2, 5, torch.device("cpu")).tolist() == [0, 5, 10]
    documents = torch.tensor([[0, 0, 1, 1, -1], [-1, -1, 0, 1, 0]])
    assert document_starts(documents, 2, 5, torch.device("cpu")).tolist() == [0, 2, 4, 5, 7, 8, 9, 10]
