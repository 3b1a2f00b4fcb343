"""Attention chosen per layer: windows against plain masked attention and their cached form; what a checkpoint or a cache cannot hold."""

import pytest
import torch
from pydantic import ValidationError

from arcforge.core.errors import UserError
from arcforge.kernels.attention.naive import mha
from arcforge.model.cache import BLOCK, PagedCache
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.hf_config import VARIANT_KEYS
from arcforge.model.initialise import new_model
from arcforge.model.trunk import GlmMoeDsa

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "q_lora_rank": 24,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 48,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 8,
}  # fmt: skip
WINDOW = 5


def windowed(*layers) -> GlmMoeDsa:
    """The same weights whichever layers have a window."""
    types = tuple("window" if layer in layers else "full" for layer in range(3))
    config = ModelConfig(**SIZES, attention_types=types, sliding_window=WINDOW if layers else 0)
    return new_model(config, seed=3).eval()


def ids(rows, length):
    return torch.randint(0, SIZES["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(1))


def reference(model, layer, x_BTD, layout, visible_BTS):
    """Attention of one layer over a mask that is written out key by key."""
    attention = model.layers[layer].self_attn
    _, q_nope, q_rope = attention._queries(x_BTD, layout)
    k_BHTK, v_BHTV = attention._expand(*attention._latents(x_BTD, layout))
    q_BHTK = torch.cat((q_nope, q_rope), -1).transpose(1, 2)
    return attention.o_proj(mha(q_BHTK, k_BHTK, v_BHTV, visible_BTS, attention.scale).transpose(1, 2).flatten(2))


def test_the_training_form_is_plain_attention_over_near_keys_of_the_document():
    model = windowed(0, 2)
    # A prefix of 4 that two documents share, then padding: the second document's first token stands at position 4 too.
    documents = torch.tensor([[-2] * 4 + [0] * 9 + [1] * 7 + [-1] * 2])
    positions = torch.tensor([[*range(4), *range(4, 13), *range(4, 11), 0, 1]])
    layout = model.layout(documents, positions_BT=positions)
    x_BTD = torch.randn(1, 22, SIZES["hidden_size"], generator=torch.Generator().manual_seed(2))
    for layer in (1, 2):  # the last one loops with a window
        visible = torch.zeros(1, 22, 22, dtype=torch.bool)
        for t in range(22):
            for s in range(t + 1):
                same = documents[0, s] in (documents[0, t], -2)
                near = layer == 1 or int(positions[0, t] - positions[0, s]) < WINDOW
                visible[0, t, s] = same and near
        out = model.layers[layer].self_attn(x_BTD, layout).out_BTD
        assert torch.allclose(out, reference(model, layer, x_BTD, layout, visible), atol=1e-5)
    assert visible[0, 13, :4].sum() == 4 and not visible[0, 13, 4:13].any(), "document 1 looks back into the prefix"
    assert not visible[0, 19, :15].any(), "and later past it"


@pytest.mark.parametrize("layers", [(0, 2), (1,)], ids=["window first", "full first"])
def test_cached_decoding_equals_the_training_form(layers):
    model, tokens = windowed(*layers), ids(2, 40)
    with torch.no_grad():
        full = model(tokens, model.layout(torch.zeros_like(tokens), sparse=True)).hidden_BTD
        cache, tables = PagedCache(model.config, blocks=12), torch.tensor([[7, 2, 9], [4, 11, 1]])
        hidden = []
        for start, end in [(0, 17), (17, 18), (18, 25), *((i, i + 1) for i in range(25, 40))]:
            at = torch.arange(start, end).expand(2, -1)
            view, layout = model.cache_view(cache, tables[:, : -(-end // BLOCK)], at)
            hidden.append(model.decode(tokens[:, start:end], layout, view))
    assert torch.allclose(torch.cat(hidden, 1), full, atol=1e-4)
    everything = windowed()(tokens, windowed().layout(torch.zeros_like(tokens), sparse=True)).hidden_BTD
    assert (everything - full)[:, WINDOW:].abs().max() > 1e-2, "the test must reach beyond the window"


def test_all_layers_full_is_the_model_itself(tmp_path):
    default = new_model(ModelConfig(**SIZES), seed=3).eval()
    tokens = ids(1, 20)
    layout = default.layout(torch.zeros_like(tokens))
    assert torch.equal(default(tokens, layout).hidden_BTD, windowed()(tokens, layout).hidden_BTD)
    save_checkpoint(windowed(), tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert not any(key in text for key in VARIANT_KEYS)


@pytest.mark.parametrize("kind", ["window", "gqa", "gdn", "simple_gdn"])
def test_a_model_with_other_layers_is_not_saved(kind, tmp_path):
    config = ModelConfig(**SIZES, attention_types=("full", kind, "full"), sliding_window=4 if kind == "window" else 0)
    with pytest.raises(UserError, match=f"a glm_moe_dsa checkpoint cannot hold {kind} layers") as error:
        save_checkpoint(new_model(config, seed=0), tmp_path / "checkpoint")
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("kind", ["gqa", "gdn", "simple_gdn"])
def test_a_cache_is_refused_where_a_layer_has_no_form_for_it(kind):
    with pytest.raises(UserError, match=f"attention_types: {kind} layers read whole rows only"):
        PagedCache(ModelConfig(**SIZES, attention_types=("full", "full", kind)), blocks=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attention_types": ("window",), "sliding_window": 4}, "attention_types needs one of full, window, gqa"),
        ({"attention_types": ("full", "gated", "full")}, "attention_types"),
        ({"attention_types": ("full", "window", "full")}, "sliding_window must be set"),
        ({"sliding_window": 4}, "sliding_window must be set"),
        ({"gqa_key_value_heads": 3}, "must divide num_attention_heads"),
    ],
)
def test_types_that_fit_together(wrong, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**SIZES, **wrong)


def test_a_cache_lies_on_the_device_that_it_is_given():
    cache = PagedCache(windowed().config, blocks=2, dtype=torch.bfloat16, device="meta")
    assert {(t.device.type, t.dtype) for t in (cache.keys, cache.indexer_keys)} == {("meta", torch.bfloat16)}
