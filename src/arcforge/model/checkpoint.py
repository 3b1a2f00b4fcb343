"""Hugging Face folders of type `glm_moe_dsa`, MTP layer included: read and written, BF16, FP32 or FP8 (128x128 blocks).

The MTP layer is stored as layer `num_hidden_layers` (with enorm, hnorm, eh_proj and shared_head.norm);
experts are stored one by one and held stacked. Tensors are read and written one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.model.config import ModelConfig
from arcforge.model.fp8 import BLOCK, dequantise, is_quantised_name, quantise
from arcforge.model.hf_config import hf_config, read_config
from arcforge.model.reward import RewardModel
from arcforge.model.stored import SCALE, SHARD_BYTES, Plan, StoredTensors, write_tensors
from arcforge.model.trunk import GlmMoeDsa

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTROL = {"bos_token_id": None, "eos_token_id": [0], "pad_token_id": 0}
REWARD_HEAD = "score.weight"


def save_checkpoint(
    model: GlmMoeDsa | RewardModel,
    folder: Path,
    dtype: str = "float32",
    control: dict[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write weights, config.json and generation_config.json. dtype: "float32" | "bfloat16" | "fp8".

    The tokenizer's files are written by `chat`. Every file appears whole or not at all.
    """
    trunk = model.trunk if isinstance(model, RewardModel) else model
    tensors = dict(to_hf(trunk))
    if isinstance(model, RewardModel):
        tensors[REWARD_HEAD] = model.score.weight
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    files = config_files(trunk.config, control or CONTROL, dtype)
    try:
        for name, data in files.items():
            atomic_write(folder / name, json.dumps(data, indent=2))
        coming = (part for name, tensor in tensors.items() for part in formatted(name, tensor, dtype))
        write_tensors(folder, plans(shapes, dtype), coming, shard_bytes)
    except OSError as error:
        raise UserError(
            f"{folder}: the checkpoint cannot be written: {error.strerror}; free space and run again"
        ) from None


def config_files(config: ModelConfig, control: Mapping[str, Any], dtype: str) -> dict[str, dict[str, Any]]:
    """config.json and generation_config.json by name."""
    data = hf_config(config, dict(control))
    if dtype == "fp8":
        data["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
        }
    else:
        data["dtype"] = dtype
    stops = {"eos_token_id": data["eos_token_id"], "pad_token_id": data["pad_token_id"], "do_sample": True}
    return {"config.json": data, "generation_config.json": stops}


def plans(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> list[Plan]:
    """What is written for these tensors, in their order; see `formatted`."""
    result: list[Plan] = []
    for name, shape in shapes.items():
        if dtype == "fp8" and is_quantised_name(name):
            rows, columns = (-(-size // BLOCK) for size in shape)
            result += [Plan(name, torch.float8_e4m3fn, shape), Plan(name + SCALE, torch.float32, (rows, columns))]
        else:
            result.append(Plan(name, _format(name, dtype), shape))
    return result


def formatted(name: str, tensor: Tensor, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """The tensor as it is stored: cast, or quantised and followed by its multipliers. The router's bias stays float32."""
    if dtype == "fp8" and is_quantised_name(name):
        quantised, scale = quantise(tensor)
        yield from ((name, quantised), (name + SCALE, scale))
    else:
        yield name, tensor.to(_format(name, dtype))


def _format(name: str, dtype: str) -> torch.dtype:
    return torch.float32 if _keeps_fp32(name) else DTYPES.get(dtype, torch.bfloat16)


def rounded(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """float32, with the values that a checkpoint of this dtype ("bfloat16" | "fp8") would hold."""
    if dtype == "fp8" and is_quantised_name(name):
        return dequantise(*quantise(tensor))
    return tensor.to(_format(name, dtype)).float()


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32, values: str = "") -> GlmMoeDsa:
    """Build the model of a folder. UserError names a tensor that is missing, unexpected, misshaped or not finite. FP8 blocks
    are dequantised. values: of `fill`."""
    model = GlmMoeDsa(read_config(folder))
    fill(model, StoredTensors(folder), values=values)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # buffers stay: the router's bias chooses experts in float32
    return model.eval()


def load_reward_model(folder: Path) -> RewardModel | None:
    """The reward model of a folder, or None when it holds no scalar head."""
    stored = StoredTensors(folder)
    if REWARD_HEAD not in stored:
        return None
    model = RewardModel(GlmMoeDsa(read_config(folder)))
    with torch.no_grad():
        model.score.weight.copy_(stored.read(REWARD_HEAD))
    fill(model.trunk, stored)
    return model.eval()


@torch.no_grad()
def fill(model: GlmMoeDsa, stored: StoredTensors, at_once: bool = False, values: str = "") -> None:
    """Copy stored tensors into the model; duplicates of shared MTP tensors (older checkpoints) are accepted.

    Names and shapes are checked before anything is copied. at_once: values too, at the price of holding all of them: a folder
    that is no good then leaves the old weights as they were. values: "" as they are stored, or `rounded` to a dtype.
    """
    targets = dict(to_hf(model))
    check(stored, {name: tuple(target.shape) for name, target in targets.items()}, model.config)
    read = {name: stored.read(name) for name in targets} if at_once else None
    for name, target in targets.items():
        tensor = stored.read(name) if read is None else read[name]
        target.copy_(rounded(name, tensor, values) if values else tensor)


def check(stored: StoredTensors, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """UserError for the first tensor that is missing, misshaped or belongs to nothing."""
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            where = stored[name].file
            raise UserError(f"{where}: {name} is {stored[name].shape}, the config says {shape}")
    for name in unexpected(stored, shapes, config):
        raise UserError(f"{stored[name].file}: {name} belongs to no part of the model that config.json describes")


def unexpected(stored: StoredTensors, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> list[str]:
    """Stored names that the model has no place for, but for copies of embeddings and head beside the MTP layer."""
    mtp = f"model.layers.{config.num_hidden_layers}."
    known = {REWARD_HEAD, f"{mtp}embed_tokens.weight", f"{mtp}shared_head.head.weight"}
    return [name for name in stored.weights() if name not in shapes and name not in known]


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint; nothing is allocated."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in to_hf(GlmMoeDsa(config))}


def to_hf(model: GlmMoeDsa) -> Iterator[tuple[str, Tensor]]:
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
