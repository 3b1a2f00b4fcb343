"""The model against transformers' GlmMoeDsaForCausalLM, the independent reading of the architecture."""

import pytest
import torch
from parity import CASES, build, inputs, logits
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.models.glm_moe_dsa.modeling_glm_moe_dsa import GlmMoeDsaDecoderLayer

from arcforge.model import attention
from arcforge.model.cache import BLOCK, PagedCache
from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def pair(case, tmp_path_factory):
    return build(case, tmp_path_factory.mktemp(case.replace(" ", "-")) / "checkpoint")


@torch.no_grad()
def test_logits(pair, case):
    ids = inputs(case)
    ours, theirs = logits(pair.model, ids), pair.oracle(ids).logits
    assert torch.allclose(ours, theirs, atol=TOLERANCE), (ours - theirs).abs().max()
    dense = pair.model.lm_head(pair.model(ids, pair.model.layout(torch.zeros_like(ids))).hidden_BTD)
    beyond = (dense - theirs)[:, pair.model.config.index_topk :].abs()
    assert case == "short" or beyond.max() > 1e-2, "the case must reach beyond top-k"


@torch.no_grad()
def test_selected_keys(pair, case, monkeypatch):
    """Sets, not orders; of rows where the k-th and the next score are apart."""
    ids, ours, theirs = inputs(case), [], []

    def recorded(scores, allowed, topk):
        mask = choose(scores, allowed, topk)
        ordered = scores.masked_fill(~allowed, float("-inf")).sort(-1, descending=True).values
        gap = ordered[..., topk - 1] - ordered[..., topk] if ordered.shape[-1] > topk else ordered[..., 0] * 0 + 1
        ours.append((mask, (gap > 1e-4) | gap.isnan()))
        return mask

    choose = attention.select_topk
    monkeypatch.setattr(attention, "select_topk", recorded)
    logits(pair.model, ids)
    hooks = [
        layer.self_attn.indexer.register_forward_hook(lambda _, __, out: theirs.append(out))
        for layer in pair.oracle.model.layers
        if layer.self_attn.indexer is not None
    ]
    pair.oracle(ids)
    for hook in hooks:
        hook.remove()
    assert len(ours) == len(theirs) == sum(pair.model.config.has_indexer(i) for i in range(len(pair.model.layers)))
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    compared = 0
    for (mask, clear), indices in zip(ours, theirs, strict=True):
        other = torch.zeros_like(mask).scatter(2, indices.long(), True) & causal
        assert torch.equal(mask[clear], other[clear])
        compared += int(clear.sum())
    assert compared > 0.7 * len(ours) * ids.numel()


@torch.no_grad()
def test_cached_decode(pair, case):
    """Ours token by token and in pieces over the latent cache, against transformers' full forward."""
    model, ids = pair.model, inputs(case)
    theirs = pair.oracle(ids).logits
    cache, hidden, tables = PagedCache(model.config, blocks=12), [], torch.tensor([[7, 2, 9, 0], [4, 11, 1, 5]])
    for start, end in [(0, 17), (17, 18), (18, 25), *((i, i + 1) for i in range(25, ids.shape[1]))]:
        positions = torch.arange(start, end).expand(2, -1)
        view, layout = model.cache_view(cache, tables[:, : -(-end // BLOCK)], positions)
        hidden.append(model.decode(ids[:, start:end], layout, view))
    assert torch.allclose(model.lm_head(torch.cat(hidden, 1)), theirs, atol=TOLERANCE)


@torch.no_grad()
def test_a_left_padded_batch(pair, case):
    ids = inputs(case)
    padding = 9
    attended = torch.ones_like(ids)
    attended[0, :padding] = 0
    theirs = pair.oracle(ids, attention_mask=attended, position_ids=torch.arange(ids.shape[1])[None]).logits
    ours = logits(pair.model, ids, attended - 1)
    assert torch.allclose(ours[0, padding:], theirs[0, padding:], atol=TOLERANCE)
    assert torch.allclose(ours[1], theirs[1], atol=TOLERANCE)
    alone = logits(pair.model, ids[:1, padding:])
    assert torch.allclose(ours[:1, padding:], alone, atol=TOLERANCE), "padding changes nothing"


def test_gradients(pair, case):
    model, ids = pair.model, inputs(case)
    model.zero_grad()
    logits(model, ids).square().mean().backward()
    pair.oracle.zero_grad()
    pair.oracle(ids).logits.square().mean().backward()
    theirs, checked = dict(pair.oracle.named_parameters()), 0
    for name, parameter in model.named_parameters():
        other = theirs.get(name if name.startswith("lm_head") else f"model.{name}")
        if other is None or other.grad is None or "indexer" in name:
            continue
        scale = other.grad.abs().max().clamp(min=1.0)
        assert parameter.grad is not None and torch.allclose(parameter.grad, other.grad, atol=TOLERANCE * scale), name
        checked += 1
    assert checked > 30


@torch.no_grad()
def test_mtp_steps_are_transformers_own_layer_in_the_known_wiring(pair, case):
    """eh_proj([enorm(embedding of the next token) ; hnorm(hidden after the final norm)]), a sparse layer, a norm; the second
    step takes the first one's output behind that norm."""
    model, ids = pair.model, inputs(case)
    config = pair.oracle.config
    layer = GlmMoeDsaDecoderLayer(config, config.num_hidden_layers - 1).eval()
    weights = {
        k: v for k, v in model.mtp.state_dict().items() if not k.startswith(("enorm", "hnorm", "eh_", "shared_head"))
    }
    if layer.self_attn.indexer is None:  # the last layer's type is not the MTP layer's
        layer.self_attn.indexer = type(pair.oracle.model.layers[0].self_attn.indexer)(config, 0)
        layer.self_attn.skip_topk = False
    layer.load_state_dict({k: v for k, v in weights.items() if not k.endswith("gate.load")})
    positions = torch.arange(ids.shape[1])[None]
    angles = pair.oracle.model.rotary_emb(torch.zeros(1), positions)
    mask = (
        torch.zeros(ids.shape[1], ids.shape[1])
        .masked_fill(~torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril(), torch.finfo(torch.float32).min)[
            None, None
        ]
        .expand(len(ids), -1, -1, -1)
    )
    ours = theirs = model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
    for step in (1, 2):
        following = ids.roll(-step, 1)
        ours = model.draft_features(following, ours, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD
        joined = model.mtp.eh_proj(
            torch.cat((model.mtp.enorm(model.embed_tokens(following)), model.mtp.hnorm(theirs)), -1)
        )
        out = layer(joined, attention_mask=mask, position_embeddings=angles, position_ids=positions)
        theirs = model.mtp.shared_head_norm(out[0] if isinstance(out, tuple) else out)
        assert torch.allclose(ours, theirs, atol=TOLERANCE), (step, (ours - theirs).abs().max())


@torch.no_grad()
def test_a_saved_folder_is_read_by_the_auto_class(pair, case, tmp_path):
    save_checkpoint(pair.model, tmp_path, "float32")
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    ids = inputs(case)
    assert torch.allclose(logits(pair.model, ids), oracle(ids).logits, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loaded_and_saved_again_every_tensor_has_the_same_bytes(pair, tmp_path, dtype):
    first, second = tmp_path / "first", tmp_path / "second"
    save_checkpoint(pair.model, first, dtype)
    save_checkpoint(load_checkpoint(first), second, dtype)
    stored = [
        {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}
        for folder in (first, second)
    ]
    assert stored[0].keys() == stored[1].keys() and any("layers.3." in n or "layers.8." in n for n in stored[0])
    for name, tensor in stored[0].items():
        assert tensor.dtype == stored[1][name].dtype
        assert torch.equal(tensor.view(torch.uint8), stored[1][name].view(torch.uint8)), name


@torch.no_grad()
def test_packed_documents_do_not_see_each_other(pair, case):
    """Not bit for bit: experts that lose or gain a token multiply matrices of another size."""
    ids = inputs(case, rows=1)[:, :30]
    documents = torch.tensor([[0] * 14 + [1] * 16])
    before = logits(pair.model, ids, documents)
    ids[0, 3] = (ids[0, 3] + 1) % 96
    after = logits(pair.model, ids, documents)
    assert torch.allclose(before[:, 14:], after[:, 14:], atol=1e-5)
    assert (before[:, 3:14] - after[:, 3:14]).abs().amax(-1).min() > 1e-4


def test_counts_are_the_stored_elements(pair):
    biases = sum(router.e_score_correction_bias.numel() for router in pair.model.routers())
    assert count(pair.model.config).total == sum(p.numel() for p in pair.model.parameters()) + biases


def test_counts_reproduce_the_published_sizes():
    glm5 = ModelConfig(
        vocab_size=154880, hidden_size=6144, num_hidden_layers=78, first_k_dense_replace=3, num_attention_heads=64,
        q_lora_rank=2048, kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256,
        intermediate_size=12288, moe_intermediate_size=2048, n_routed_experts=256, num_experts_per_tok=8,
        index_n_heads=32, index_head_dim=128, index_topk=2048,
        indexer_types=tuple("full" if i < 3 or i % 4 == 2 else "shared" for i in range(78)),
    )  # fmt: skip
    counts = count(glm5)
    assert counts.total == 753_329_940_480
    assert counts.total - counts.mtp - 75 * 256 == 743_377_000_704
