"""Root-mean-square norm with a backward pass that keeps the input and one number per row. Legend: N rows, D dims.

The maths is in README.md beside this file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps), statistics of at least float32, cast to x's dtype and then times weight. x: [..., D]."""
    return _RMSNorm.apply(x, weight_D, eps)  # type: ignore[return-value]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = square.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        return (wide * scale).to(x.dtype).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_D, scale = ctx.saved_tensors
        x_ND, scale_N1 = x.flatten(0, -2).to(scale.dtype), scale.flatten(0, -2)
        grad_ND, weight = grads[0].flatten(0, -2).to(scale.dtype), weight_D.to(scale.dtype)
        products_ND = grad_ND * x_ND
        slope_N1 = (products_ND @ weight).unsqueeze(1).mul_(scale_N1.pow(3)).div_(-x.shape[-1])
        dx_ND = (grad_ND * weight).mul_(scale_N1).addcmul_(x_ND, slope_N1)
        dweight_D = scale_N1.squeeze(1) @ products_ND
        return dx_ND.view(x.shape).to(x.dtype), dweight_D.to(weight_D.dtype), None
