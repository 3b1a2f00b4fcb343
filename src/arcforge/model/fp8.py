"""FP8 weights as zai-org publishes them: e4m3 in 128x128 blocks with one float32 multiplier each, ragged edges included."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
LARGEST = 448.0
QUANTISED = (
    *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "wq_b", "wk"),
    *("gate_proj", "up_proj", "down_proj"),
)


def is_quantised_name(name: str) -> bool:
    """Attention, indexer wq_b and wk, and every MLP matrix; embeddings, head, norms, router, eh_proj stay BF16."""
    parts = name.split(".")
    return parts[-1] == "weight" and len(parts) > 1 and parts[-2] in QUANTISED


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[r, c] -> (float8_e4m3fn [r, c], multipliers float32 [ceil(r/128), ceil(c/128)])."""
    blocks = _blocks(weight.float())
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / LARGEST
    quantised = (blocks / scale[:, None, :, None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    r, c = weight.shape
    return quantised.flatten(0, 1).flatten(1)[:r, :c].contiguous(), scale


def dequantise(weight: Tensor, scale: Tensor) -> Tensor:
    """Inverse of `quantise`, float32. A partial block at the edge uses its own multiplier."""
    r, c = weight.shape
    full = _blocks(weight.float()) * scale[:, None, :, None]
    return full.flatten(0, 1).flatten(1)[:r, :c].contiguous()


def _blocks(weight: Tensor) -> Tensor:
    """[r, c] -> zero-padded [R, 128, C, 128]."""
    r, c = weight.shape
    padded = F.pad(weight, (0, -c % BLOCK, 0, -r % BLOCK))
    return padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
