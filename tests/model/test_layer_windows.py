"""Sliding windows of single layers: the training form against plain masked attention, the cached form against it."""

import pytest
import torch
from pydantic import ValidationError

from arcforge.core.errors import UserError
from arcforge.kernels.attention.naive import mha
from arcforge.model.cache import LatentCache
from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.trunk import GlmMoeDsa

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "q_lora_rank": 24,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 48,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 8,
}  # fmt: skip
WINDOW = 5


def windowed(*windows) -> GlmMoeDsa:
    """The same weights whatever the windows."""
    return new_model(ModelConfig(**SIZES, layer_windows=windows), seed=3).eval()


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
    model = windowed(WINDOW, 0, WINDOW)
    # A prefix of 4 that two documents share, then padding: the second document's first token stands at position 4 too.
    documents = torch.tensor([[-2] * 4 + [0] * 9 + [1] * 7 + [-1] * 2])
    positions = torch.tensor([[*range(4), *range(4, 13), *range(4, 11), 0, 1]])
    layout = model.layout(documents, positions_BT=positions)
    x_BTD = torch.randn(1, 22, SIZES["hidden_size"], generator=torch.Generator().manual_seed(2))
    for layer, window in enumerate(model.config.layer_windows):
        visible = torch.zeros(1, 22, 22, dtype=torch.bool)
        for t in range(22):
            for s in range(t + 1):
                same = documents[0, s] in (documents[0, t], -2)
                near = not window or int(positions[0, t] - positions[0, s]) < window
                visible[0, t, s] = same and near
        out = model.layers[layer].self_attn(x_BTD, layout).out_BTD
        assert torch.allclose(out, reference(model, layer, x_BTD, layout, visible), atol=1e-5)
    assert visible[0, 13, :4].sum() == 4 and not visible[0, 13, 4:13].any(), "document 1 looks back into the prefix"
    assert not visible[0, 19, :15].any(), "and later past it"


@pytest.mark.parametrize("windows", [(WINDOW, 0, WINDOW), (0, WINDOW, 0)], ids=["window first", "full first"])
def test_cached_decoding_equals_the_training_form(windows):
    model, tokens = windowed(*windows), ids(2, 40)
    with torch.no_grad():
        full = model(tokens, model.layout(torch.zeros_like(tokens), sparse=True)).hidden_BTD
        cache = LatentCache(model.config, slots=3, capacity=64)
        hidden = []
        for start, end in [(0, 17), (17, 18), (18, 25), *((i, i + 1) for i in range(25, 40))]:
            at = torch.arange(start, end).expand(2, -1)
            view, layout = model.cache_view(cache, torch.tensor([2, 0]), at, span=end)
            hidden.append(model.decode(tokens[:, start:end], layout, view))
    assert torch.allclose(torch.cat(hidden, 1), full, atol=1e-4)
    everything = windowed()(tokens, windowed().layout(torch.zeros_like(tokens), sparse=True)).hidden_BTD
    assert (everything - full)[:, WINDOW:].abs().max() > 1e-2, "the test must reach beyond the window"


def test_windows_of_zero_are_no_windows(tmp_path):
    none, zeros = windowed(), windowed(0, 0, 0)
    tokens = ids(1, 20)
    layout = none.layout(torch.zeros_like(tokens))
    assert torch.equal(none(tokens, layout).hidden_BTD, zeros(tokens, layout).hidden_BTD)
    save_checkpoint(zeros, tmp_path)
    assert "layer_windows" not in (tmp_path / "config.json").read_text()


def test_a_model_with_windows_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="layer_windows: glm_moe_dsa has no windows") as error:
        save_checkpoint(windowed(WINDOW, 0, 0), tmp_path / "checkpoint")
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("windows", [(4,), (4, 0), (4, 0, -1)])
def test_one_window_per_layer(windows):
    with pytest.raises(ValidationError, match="one number per hidden layer"):
        ModelConfig(**SIZES, layer_windows=windows)
