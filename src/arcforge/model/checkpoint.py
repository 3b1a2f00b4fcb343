"""Hugging Face folders of type `glm_moe_dsa`, MTP layer included: read and written, BF16, FP32 or FP8 (128x128 blocks).

The MTP layer is stored as layer `num_hidden_layers` (with enorm, hnorm, eh_proj and shared_head.norm);
experts are stored one by one and held stacked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.model.config import hf_config, read_config
from arcforge.model.fp8 import BLOCK, dequantise, is_quantised_name, quantise
from arcforge.model.reward import RewardModel
from arcforge.model.trunk import GlmMoeDsa

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTROL = {"bos_token_id": None, "eos_token_id": [0], "pad_token_id": 0}


def save_checkpoint(
    model: GlmMoeDsa | RewardModel, folder: Path, dtype: str = "float32", control: dict[str, Any] | None = None
) -> None:
    """Write weights, config.json and generation_config.json. dtype: "float32" | "bfloat16" | "fp8".

    The tokenizer's files are written by `chat`. Every file appears whole or not at all; the weights come last.
    """
    trunk = model.trunk if isinstance(model, RewardModel) else model
    tensors = dict(_to_hf(trunk))
    if isinstance(model, RewardModel):
        tensors["score.weight"] = model.score.weight
    config = hf_config(trunk.config, control or CONTROL)
    if dtype == "fp8":
        tensors = _quantised(tensors)
        config["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
        }
    else:
        config["dtype"] = dtype
        tensors = {name: t if _keeps_fp32(name) else t.to(DTYPES[dtype]) for name, t in tensors.items()}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    shard = "model-00001-of-00001.safetensors"
    index = {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(sorted(tensors), shard)}
    stops = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["pad_token_id"]}
    try:
        atomic_write(folder / "config.json", json.dumps(config, indent=2))
        atomic_write(folder / "generation_config.json", json.dumps({**stops, "do_sample": True}, indent=2))
        atomic_write(folder / "model.safetensors.index.json", json.dumps(index, indent=1))
        atomic_write(folder / shard, save({k: v.detach().contiguous() for k, v in tensors.items()}, {"format": "pt"}))
    except OSError as error:
        raise UserError(
            f"{folder}: the checkpoint cannot be written: {error.strerror}; free space and run again"
        ) from None


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> GlmMoeDsa:
    """Build the model of a folder. UserError names a missing or misshaped tensor. FP8 blocks are dequantised."""
    model = GlmMoeDsa(read_config(folder))
    fill(model, read_tensors(folder, dtype), folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # buffers stay: the router's bias chooses experts in float32
    return model.eval()


def load_reward_model(folder: Path) -> RewardModel | None:
    """The reward model of a folder, or None when it holds no scalar head."""
    tensors = read_tensors(folder, torch.float32)
    if "score.weight" not in tensors:
        return None
    model = RewardModel(GlmMoeDsa(read_config(folder)))
    with torch.no_grad():
        model.score.weight.copy_(tensors.pop("score.weight"))
    fill(model.trunk, tensors, folder)
    return model.eval()


def read_tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of a folder by its stored name, dequantised and cast (the router bias stays float32)."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no model*.safetensors here; a checkpoint folder holds them")
    raw: dict[str, Tensor] = {}
    for file in files:
        try:
            raw.update(load_file(file))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file}: cannot be read: {error}") from None
    tensors = {}
    for name, tensor in raw.items():
        if name.endswith("_scale_inv"):
            continue
        if tensor.dtype == torch.float8_e4m3fn:
            if f"{name}_scale_inv" not in raw:
                raise UserError(f"{folder}: {name} is FP8 and its tensor {name}_scale_inv is missing")
            tensor = dequantise(tensor, raw[f"{name}_scale_inv"])
        tensors[name] = tensor if _keeps_fp32(name) else tensor.to(dtype)
    return tensors


@torch.no_grad()
def fill(model: GlmMoeDsa, tensors: dict[str, Tensor], where: Path) -> None:
    """Copy stored tensors into the model; duplicates of shared MTP tensors (older checkpoints) are accepted.

    Everything is checked before anything is copied: a folder that does not fit leaves the old weights as they were.
    """
    targets = dict(_to_hf(model))
    for name, target in targets.items():
        if name not in tensors:
            raise UserError(f"{where}: tensor {name} is missing")
        if tensors[name].shape != target.shape:
            raise UserError(f"{where}: {name} is {tuple(tensors[name].shape)}, the config says {tuple(target.shape)}")
    for name, target in targets.items():
        target.copy_(tensors[name])


def _to_hf(model: GlmMoeDsa) -> Iterator[tuple[str, Tensor]]:
    """Stored names and views of the model's own storage (writing to a view writes to the model)."""
    mtp_prefix = f"model.layers.{model.config.num_hidden_layers}."
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("gate.load"):
            continue
        if name.startswith("mtp."):
            stored = mtp_prefix + name.removeprefix("mtp.").replace("shared_head_norm", "shared_head.norm")
        else:
            stored = name if name.startswith("lm_head") else f"model.{name}"
        if stored.endswith("experts.gate_up_proj"):
            base = stored.removesuffix("gate_up_proj")
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)
                yield f"{base}{e}.gate_proj.weight", gate
                yield f"{base}{e}.up_proj.weight", up
        elif stored.endswith("experts.down_proj"):
            for e, down in enumerate(tensor):
                yield f"{stored.removesuffix('down_proj')}{e}.down_proj.weight", down
        else:
            yield stored, tensor


def _keeps_fp32(name: str) -> bool:
    return name.endswith("e_score_correction_bias")


def _quantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {}
    for name, tensor in tensors.items():
        if is_quantised_name(name):
            result[name], result[f"{name}_scale_inv"] = quantise(tensor)
        else:
            result[name] = tensor if _keeps_fp32(name) else tensor.to(torch.bfloat16)
    return result
