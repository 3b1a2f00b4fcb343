"""Muon with Muon Split for matrices, AdamW for the rest, as one optimizer with one state (GLM-5 report, section 2.1).

Muon: momentum 0.95 (Nesterov), five Newton-Schulz steps, update scaled to RMS 0.2 (Moonlight: 0.2 * sqrt(max(rows,
columns))), weight decay 0.1. Muon Split: W_UQ, W_UK and W_UV are orthogonalised one head at a time, experts one expert at
a time. Matrices of equal shape are orthogonalised in one batch.
"""

# pyright: reportPrivateImportUsage=false
# (torch types its _foreach functions but does not export them.)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from arcforge.core.config import Config
from arcforge.core.matrix import MatrixSpec
from arcforge.optim.newton_schulz import orthogonalise

UPDATE_RMS = 0.2
MOMENTUM = 0.95


class OptimizerConfig(Config):
    """lr is shared: Muon's update RMS matches AdamW's, so one number serves both."""

    lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    muon: bool = True


class MuonAdamW:
    """Steps every parameter that requires a gradient. `lr_scale` (schedule) is passed to `step`.

    state_dict / load_state_dict keep momenta by parameter name; `reset_state` forgets them (GLM-5 report, section 4.1.1:
    the optimizer is reset after each weight update of the inference engines).
    """

    def __init__(self, model: nn.Module, specs: Mapping[str, MatrixSpec], config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.specs = specs
        self.state: dict[str, dict[str, Tensor]] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self, lr_scale: float = 1.0) -> float:
        """Clip by global norm, update, clear gradients; returns the gradient norm before clipping."""
        live = {n: p for n, p in self.parameters.items() if p.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(live.values(), self.config.max_grad_norm)
        self.steps += 1
        lr = self.config.lr * lr_scale
        matrices = {n: p for n, p in live.items() if self.config.muon and self.specs[n].kind != "vector"}
        self._muon(matrices, lr)
        self._adamw({n: p for n, p in live.items() if n not in matrices}, lr)
        for parameter in self.parameters.values():
            parameter.grad = None
        return float(norm)

    def reset_state(self) -> None:
        self.state.clear()
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        self.steps = data["steps"]
        self.state = {
            name: {key: tensor.to(self.parameters[name].device, copy=True) for key, tensor in slots.items()}
            for name, slots in data["state"].items()
        }

    def _muon(self, parameters: Mapping[str, nn.Parameter], lr: float) -> None:
        batches: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, parameter in parameters.items():
            grad = parameter.grad
            assert grad is not None
            momentum = self._slot(name, "momentum", parameter)
            momentum.lerp_(grad, 1 - MOMENTUM)
            update = grad.lerp(momentum, MOMENTUM)
            parameter.mul_(1 - lr * self.config.weight_decay)
            for target, piece in zip(split(parameter, self.specs[name]), split(update, self.specs[name]), strict=True):
                batches[(piece.shape[-2], piece.shape[-1])].append((target, piece))
        for (rows, columns), pairs in batches.items():
            stacked = torch.cat([piece.reshape(-1, rows, columns) for _, piece in pairs])
            scaled = orthogonalise(stacked) * (-lr * UPDATE_RMS * max(rows, columns) ** 0.5)
            sizes = [target.numel() // (rows * columns) for target, _ in pairs]
            for (target, _), delta in zip(pairs, scaled.split(sizes), strict=True):
                target.add_(delta.view_as(target))

    def _adamw(self, parameters: Mapping[str, nn.Parameter], lr: float) -> None:
        names = list(parameters)
        if not names:
            return
        weights: list[Tensor] = [parameters[n] for n in names]
        grads = [w.grad for w in weights if w.grad is not None]
        first = [self._slot(n, "first", p) for n, p in parameters.items()]
        second = [self._slot(n, "second", p) for n, p in parameters.items()]
        beta1, beta2 = self.config.betas
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        decayed = [w for w in weights if w.ndim >= 2]
        if decayed:
            torch._foreach_mul_(decayed, 1 - lr * self.config.weight_decay)
        root = torch._foreach_div(second, 1 - beta2**self.steps)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, 1e-8)
        torch._foreach_addcdiv_(weights, first, root, value=-lr / (1 - beta1**self.steps))

    def _slot(self, name: str, key: str, like: Tensor) -> Tensor:
        slots = self.state.setdefault(name, {})
        if key not in slots:
            slots[key] = torch.zeros_like(like, requires_grad=False)
        return slots[key]


def split(tensor: Tensor, spec: MatrixSpec) -> list[Tensor]:
    """Views of the pieces that are orthogonalised on their own: heads, or all experts as one batch, or the whole."""
    if spec.row_slices:
        return [tensor[start:end] for start, end in spec.row_slices]
    return [tensor]
