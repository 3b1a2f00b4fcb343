"""log softmax(x W^T)[target], in chunks of rows. Legend: N tokens, D hidden, V vocabulary, X rows of one chunk.

The sequence-chunked output projection of the GLM-5 report, section 2.4: no [N, V] tensor is built twice, and the backward
pass turns the kept probabilities into gradients in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        keep = any(ctx.needs_input_grad)
        logprobs, kept = [], []
        for rows_XD, targets_X in zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), strict=True):
            logits_XV = (rows_XD @ weight_VD.T).float()
            logits_XV -= logits_XV.amax(-1, keepdim=True)
            chosen_X = logits_XV.gather(1, targets_X[:, None]).squeeze(1)
            total_X = logits_XV.exp_().sum(-1)
            logprobs.append(chosen_X - total_X.log())
            if keep:
                kept.append(logits_XV.div_(total_X[:, None]))
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, *kept)
        return torch.cat(logprobs) if logprobs else hidden_ND.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_ND, weight_VD, targets_N, *kept = ctx.saved_tensors
        grad_weight = torch.zeros_like(weight_VD)
        grad_hidden = torch.empty_like(hidden_ND)
        pieces = zip(hidden_ND.split(CHUNK), targets_N.split(CHUNK), grads[0].split(CHUNK), kept, strict=True)
        start = 0
        for rows_XD, targets_X, grad_X, probs_XV in pieces:
            slope_XV = probs_XV * -grad_X[:, None]
            slope_XV.scatter_add_(1, targets_X[:, None], grad_X[:, None])
            slope_XV = slope_XV.to(weight_VD.dtype)
            torch.mm(slope_XV, weight_VD, out=grad_hidden[start : start + len(rows_XD)])
            grad_weight.addmm_(slope_XV.T, rows_XD)
            start += len(rows_XD)
        return grad_hidden, grad_weight, None


def token_logprobs(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Natural-log probability of each target, float32 [N]; differentiable in hidden and weight."""
    return _TokenLogprobs.apply(hidden_ND, weight_VD, targets_N)  # type: ignore[return-value]
