"""The model against transformers' GlmMoeDsaForCausalLM, with weights that do not hide mistakes."""

import pytest
import torch
from transformers import GlmMoeDsaForCausalLM

from arcforge.model.cache import LatentCache
from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count
from arcforge.model.initialise import new_model

CONFIG = ModelConfig(
    vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=40, kv_lora_rank=24,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20, intermediate_size=64, moe_intermediate_size=32,
    n_routed_experts=8, num_experts_per_tok=2, n_group=4, topk_group=2, routed_scaling_factor=2.5,
    index_n_heads=16, index_head_dim=16, index_topk=12, rope_theta=8e6,
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    model = new_model(CONFIG, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * 0.3 + (0.0 if "bias" in name else 1.0)
                )
        for router in model.routers():
            router.e_score_correction_bias.copy_(torch.randn(8, generator=generator) * 0.2)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(model, folder, "float32")
    oracle = GlmMoeDsaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model.eval(), oracle, folder


def test_logits_beyond_topk_equal_transformers(pair):
    model, oracle, _ = pair
    ids = torch.randint(0, 96, (2, 50), generator=torch.Generator().manual_seed(1))
    ours = model.lm_head(model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD)
    with torch.no_grad():
        theirs = oracle(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4), (ours - theirs).abs().max()
    dense = model.lm_head(model(ids, model.layout(torch.zeros_like(ids), sparse=False)).hidden_BTD)
    assert (dense - theirs)[:, 20:].abs().max() > 1e-2, "the test must reach beyond top-k"


def test_gradients_equal_transformers(pair):
    model, oracle, _ = pair
    ids = torch.randint(0, 96, (2, 30), generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    model.lm_head(model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD).square().mean().backward()
    oracle.zero_grad()
    oracle(ids).logits.square().mean().backward()
    theirs = dict(oracle.named_parameters())
    checked = 0
    for name, parameter in model.named_parameters():
        other = theirs.get(name if name.startswith("lm_head") else f"model.{name}")
        if other is None or other.grad is None or "indexer" in name:
            continue
        assert parameter.grad is not None and torch.allclose(parameter.grad, other.grad, atol=1e-4), name
        checked += 1
    assert checked > 30


def test_cached_decode_equals_full_forward(pair):
    model, _, _ = pair
    ids = torch.randint(0, 96, (2, 40), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        full = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
        cache = LatentCache(CONFIG, slots=3, capacity=64)
        slots = torch.tensor([2, 0])
        hidden = []
        for start, end in [(0, 17), (17, 18), (18, 25), *((i, i + 1) for i in range(25, 40))]:
            positions = torch.arange(start, end).expand(2, -1)
            view, layout = model.cache_view(cache, slots, positions, span=end)
            hidden.append(model.decode(ids[:, start:end], layout, view))
    assert torch.allclose(torch.cat(hidden, 1), full, atol=1e-4)


def test_packed_documents_do_not_see_each_other(pair):
    model, _, _ = pair
    ids = torch.randint(0, 96, (1, 40), generator=torch.Generator().manual_seed(6))
    documents = torch.tensor([[0] * 18 + [1] * 22])
    before = model(ids, model.layout(documents, sparse=True)).hidden_BTD
    ids[0, 3] = (ids[0, 3] + 1) % 96
    after = model(ids, model.layout(documents, sparse=True)).hidden_BTD
    # Not bit for bit: experts that lose or gain a token multiply matrices of another size.
    assert torch.allclose(before[:, 18:], after[:, 18:], atol=1e-5)
    assert (before[:, 3:18] - after[:, 3:18]).abs().amax(-1).min() > 1e-3


def test_counts_are_the_stored_elements(pair):
    model, _, _ = pair
    stored = sum(p.numel() for p in model.parameters()) + sum(
        r.e_score_correction_bias.numel() for r in model.routers()
    )
    assert count(CONFIG).total == stored


def test_counts_reproduce_the_published_size_of_glm5():
    glm5 = ModelConfig(
        vocab_size=154880, hidden_size=6144, num_hidden_layers=78, first_k_dense_replace=3, num_attention_heads=64,
        q_lora_rank=2048, kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256,
        intermediate_size=12288, moe_intermediate_size=2048, n_routed_experts=256, num_experts_per_tok=8,
        index_n_heads=32, index_head_dim=128, index_topk=2048,
    )  # fmt: skip
    shared = 57 * (2048 * 32 * 128 + 6144 * 128 + 2 * 128 + 6144 * 32)
    assert count(glm5).total - shared == 753_329_940_480


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("bfloat16", 0.01), ("fp8", 0.07)])
def test_checkpoint_round_trip(pair, tmp_path, dtype, tolerance):
    model, _, _ = pair
    save_checkpoint(model, tmp_path, dtype)
    again = load_checkpoint(tmp_path)
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert (a - b).abs().max() <= tolerance * a.abs().max(), name
