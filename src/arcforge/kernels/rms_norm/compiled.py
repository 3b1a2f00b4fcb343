"""Root-mean-square norm as a compiled loop. Legend: N rows, D dims."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from arcforge.kernels.compiled import compiled


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`naive.rms_norm` without a gradient, float32; a row's result does not depend on the others."""
    out, size = torch.empty(x.shape), x.shape[-1]
    # One layout: for another, other code is compiled, which may round otherwise.
    _norm(x.contiguous().view(-1, size).numpy(), weight_D.detach().numpy(), np.float32(eps), out.view(-1, size).numpy())
    return out


@compiled
def _norm(x_ND, weight_D, eps, out_ND):
    N, D = x_ND.shape
    for n in range(N):
        x_D, out_D, total = x_ND[n], out_ND[n], np.float32(0)
        for d in range(D):
            total += x_D[d] * x_D[d]
        scale = np.float32(1) / np.sqrt(total / np.float32(D) + eps)
        for d in range(D):
            out_D[d] = x_D[d] * scale * weight_D[d]
