"""FP8 blocks: shapes, scales, error bounds and what a checkpoint stores."""

import json

import pytest
import torch
from safetensors.torch import load_file

from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.fp8 import BLOCK, LARGEST, dequantise, quantise
from arcforge.model.initialise import new_model

HALF_STEP = 2.0**-4  # e4m3 keeps three bits after the leading one
SUBNORMAL = 2.0**-10  # half of the smallest subnormal


def uneven(rows: int, columns: int) -> torch.Tensor:
    """Normal weights whose blocks differ in size by up to 10,000."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows + columns))
    for r in range(0, rows, BLOCK):
        for c in range(0, columns, BLOCK):
            weight[r : r + BLOCK, c : c + BLOCK] *= 10.0 ** ((r + 2 * c) // BLOCK % 5 - 3)
    return weight


@pytest.mark.parametrize("shape", [(160, 300), (128, 128), (129, 127), (1, 1), (7, 513)])
def test_the_error_is_bounded_in_every_block(shape):
    weight = uneven(*shape)
    stored, scale = quantise(weight)
    assert stored.dtype == torch.float8_e4m3fn and stored.shape == shape and scale.dtype == torch.float32
    assert scale.shape == (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
    restored = dequantise(stored, scale)
    assert restored.dtype == torch.float32 and restored.shape == shape
    for r, row in enumerate(scale):
        for c, multiplier in enumerate(row):
            part = (slice(r * BLOCK, (r + 1) * BLOCK), slice(c * BLOCK, (c + 1) * BLOCK))
            block, error = weight[part], (restored[part] - weight[part]).abs()
            assert float(multiplier) == pytest.approx(float(block.abs().max()) / LARGEST, rel=1e-6)
            allowed = torch.maximum(block.abs() * HALF_STEP, multiplier * SUBNORMAL)
            assert (error <= allowed * 1.0001).all()


def test_the_largest_weight_of_a_block_survives_and_zeros_stay():
    weight = torch.zeros(160, 300)
    weight[3, 5], weight[140, 299] = -7.5, 0.001
    restored = dequantise(*quantise(weight))
    assert torch.allclose(restored, weight, rtol=1e-6, atol=0) and restored.isfinite().all()


CONFIG = ModelConfig(
    vocab_size=40, hidden_size=136, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=24, kv_lora_rank=16,
    qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=16, intermediate_size=48, moe_intermediate_size=16,
    n_routed_experts=4, index_n_heads=2, index_head_dim=16,
)  # fmt: skip


def test_a_checkpoint_holds_scales_beside_fp8_and_the_rest_as_it_should(tmp_path):
    model = new_model(CONFIG, seed=0)
    save_checkpoint(model, tmp_path, "fp8")
    tensors = load_file(tmp_path / "model-00001-of-00001.safetensors")
    quantised = {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
    assert {f"{name}_scale_inv" for name in quantised} == {name for name in tensors if name.endswith("_scale_inv")}
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in quantised
    assert "model.layers.2.self_attn.indexer.wk.weight" in quantised, "the MTP layer too"
    for name in ("lm_head.weight", "model.embed_tokens.weight", "model.layers.1.mlp.gate.weight", "model.norm.weight"):
        assert tensors[name].dtype == torch.bfloat16
    assert tensors["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    stated = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert stated["weight_block_size"] == [128, 128] and stated["quant_method"] == "fp8"


def test_loading_in_bfloat16_keeps_the_routers_bias_exact(tmp_path):
    model = new_model(CONFIG, seed=0)
    with torch.no_grad():
        model.routers()[0].e_score_correction_bias.fill_(0.1234567)
    save_checkpoint(model, tmp_path, "bfloat16")
    again = load_checkpoint(tmp_path, torch.bfloat16)
    assert all(parameter.dtype == torch.bfloat16 for parameter in again.parameters())
    bias = again.routers()[0].e_score_correction_bias
    assert bias.dtype == torch.float32 and torch.equal(bias, model.routers()[0].e_score_correction_bias)
    ids = torch.arange(20)[None]
    layout = again.layout(torch.zeros_like(ids), sparse=True)
    assert again(ids, layout).hidden_BTD.dtype == torch.bfloat16
