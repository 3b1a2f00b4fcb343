"""Initial weights of a fresh model. Legend as in trunk.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcforge.model.config import ModelConfig
from arcforge.model.copying import copying_circuit
from arcforge.model.moe import Experts
from arcforge.model.trunk import GlmMoeDsa


@torch.no_grad()
def new_model(config: ModelConfig, seed: int, copying: bool = False) -> GlmMoeDsa:
    """A fresh float32 model, the same for the same seed.

    Matrices are normal with variance 1 / fan_in, outputs into the residual stream scaled down by depth. copying: start
    with a copying circuit (`model.copying`), an initialisation and not a change of the architecture. UserError when the
    model is too small to hold it.
    """
    model = GlmMoeDsa(config)
    generator = torch.Generator().manual_seed(seed)
    depth_scale = (2 * (config.num_hidden_layers + 1)) ** -0.5
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            scale = depth_scale if name.endswith(("o_proj", "down_proj")) else 1.0
            _normal(module.weight, scale * module.weight.shape[1] ** -0.5, generator)
        elif isinstance(module, nn.Embedding):
            _normal(module.weight, 1.0, generator)
        elif isinstance(module, Experts):
            _normal(module.gate_up_proj, config.hidden_size**-0.5, generator)
            _normal(module.down_proj, depth_scale * config.moe_intermediate_size**-0.5, generator)
    for router in model.routers():
        _normal(router.weight, config.hidden_size**-0.5, generator)
    model.lm_head.weight.mul_(0.5)
    if copying:
        copying_circuit(model, generator)
    return model


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    weight.copy_(torch.randn(weight.shape, generator=generator) * std)
