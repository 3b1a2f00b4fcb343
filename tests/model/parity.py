"""Models for the comparison with transformers: small, random, with weights that do not hide mistakes.

Each case reaches what another does not: selection beyond top-k, shared indexers with a misleading head_dim, expert groups,
rows shorter than top-k, latents so small that their norm's epsilon counts, and FP8 with ragged blocks.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GlmMoeDsaForCausalLM

from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model

BASE = ModelConfig(
    vocab_size=96, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, q_lora_rank=40, kv_lora_rank=24,
    qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=20, intermediate_size=64, moe_intermediate_size=32,
    n_routed_experts=8, num_experts_per_tok=2, routed_scaling_factor=2.5, index_n_heads=16, index_head_dim=16,
    index_topk=12, rope_theta=1e6,
)  # fmt: skip
CASES = {
    "beyond top-k": {},
    "shared indexers": {
        "num_hidden_layers": 8, "rope_theta": 8e6,
        "indexer_types": ["full" if layer in (0, 1, 2, 6) else "shared" for layer in range(8)],
    },
    "expert groups": {"n_routed_experts": 16, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4},
    "short": {"index_topk": 64},
    "small latents": {},
    "fp8": {"q_lora_rank": 160, "kv_lora_rank": 136, "hidden_size": 144, "moe_intermediate_size": 40},
}  # fmt: skip
LENGTH = 50


@dataclass
class Pair:
    """ours: loaded from `folder`, which transformers reads too, except for FP8 (`oracle_folder` holds it dequantised)."""

    model: torch.nn.Module
    oracle: torch.nn.Module
    folder: Path


def build(case: str, folder: Path) -> Pair:
    config = ModelConfig.model_validate({**BASE.model_dump(), **CASES[case]})
    model = new_model(config, seed=3)
    disturb(model, small_latents=case == "small latents")
    save_checkpoint(model, folder, "fp8" if case == "fp8" else "float32")
    trap_head_dim(folder)
    oracle_folder = dequantised(folder, folder.with_name("oracle")) if case == "fp8" else folder
    oracle = GlmMoeDsaForCausalLM.from_pretrained(oracle_folder, dtype=torch.float32, attn_implementation="eager")
    return Pair(load_checkpoint(folder), oracle.eval(), folder)


@torch.no_grad()
def disturb(model, small_latents: bool) -> None:
    """Norms away from 1, biases away from 0; latents of variance 1e-5 where wanted."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(noise + (0.0 if "bias" in name else 1.0))
        if small_latents and name.endswith(("q_a_proj.weight", "kv_a_proj_with_mqa.weight")):
            parameter.mul_(1e-3)
    for router in model.routers():
        bias = router.e_score_correction_bias
        bias.copy_(torch.randn(bias.shape, generator=generator) * 0.2)


def trap_head_dim(folder: Path) -> None:
    """Published configs carry a head_dim that is not the rope dimension."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "head_dim": 192}))


def dequantised(source: Path, target: Path) -> Path:
    """The FP8 folder in float32, block by block in plain loops: an oracle for the oracle, which cannot read ragged blocks."""
    target.mkdir()
    config = json.loads((source / "config.json").read_text())
    config.pop("quantization_config")
    (target / "config.json").write_text(json.dumps(config))
    raw = {}
    for file in source.glob("model-*.safetensors"):
        raw |= load_file(file)
    plain = {}
    for name, tensor in raw.items():
        if name.endswith("_scale_inv"):
            continue
        plain[name] = tensor.float()
        if tensor.dtype == torch.float8_e4m3fn:
            scale = raw[f"{name}_scale_inv"]
            for i in range(scale.shape[0]):
                for j in range(scale.shape[1]):
                    plain[name][128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] *= scale[i, j]
    save_file(plain, target / "model.safetensors", {"format": "pt"})
    return target


def inputs(case: str, rows: int = 2) -> torch.Tensor:
    length = 30 if case == "short" else LENGTH
    # Not 0, the padding token: transformers gives its embedding no gradient.
    return torch.randint(1, 96, (rows, length), generator=torch.Generator().manual_seed(1))


def logits(model, ids: torch.Tensor, documents: torch.Tensor | None = None) -> torch.Tensor:
    """Ours, sparse, in the training form."""
    documents = torch.zeros_like(ids) if documents is None else documents
    return model.lm_head(model(ids, model.layout(documents, sparse=True)).hidden_BTD)


def divergence(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Mean KL(theirs || ours) of the next-token distributions: how much a mistake matters."""
    p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())
