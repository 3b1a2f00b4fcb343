"""From logits to tokens. Legend: B rows, V vocabulary. One uniform number per row and token, from the request's own seed."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from arcforge.core.messages import Sampling


class RequestSampler:
    """The random stream of one request: its tokens do not depend on what else is in the batch (up to rounding)."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed)

    def uniform(self) -> float:
        return self._random.random()


def distribution(logits_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    """The distribution that each row is sampled from, float32 [B, V]; temperature 0 is one-hot at the maximum."""
    temperatures = torch.tensor([s.temperature for s in samplings])
    scaled_BV = (
        logits_BV.float() / temperatures.clamp(min=1e-6)[:, None] if (temperatures != 1).any() else logits_BV.float()
    )
    probs_BV = scaled_BV.softmax(-1)
    if any(s.top_p < 1 for s in samplings):
        probs_BV = _nucleus(probs_BV, torch.tensor([s.top_p for s in samplings]))
    greedy_B = temperatures == 0
    if greedy_B.any():
        one_hot = torch.zeros_like(probs_BV).scatter_(1, logits_BV.argmax(-1, keepdim=True), 1.0)
        probs_BV = torch.where(greedy_B[:, None], one_hot, probs_BV)
    return probs_BV


def draw(probs_BV: Tensor, uniforms: list[float]) -> Tensor:
    """Inverse-CDF sampling, int64 [B]."""
    cumulative_BV = probs_BV.cumsum(-1)
    targets_B1 = torch.tensor(uniforms, dtype=torch.float32)[:, None] * cumulative_BV[:, -1:]
    picked_B = torch.searchsorted(cumulative_BV, targets_B1, right=True).squeeze(1)
    last_B = (probs_BV > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(picked_B, last_B)


def chosen_logprobs(logits_BV: Tensor, probs_BV: Tensor, ids_B: Tensor, samplings: list[Sampling]) -> list[float]:
    """Log-probability of each sampled id: of the sampled distribution, or of the plain softmax for greedy rows."""
    sampled = probs_BV.gather(1, ids_B[:, None]).squeeze(1).clamp(min=1e-38).log()
    if all(s.temperature > 0 for s in samplings):
        return sampled.tolist()
    plain = logits_BV.float().log_softmax(-1).gather(1, ids_B[:, None]).squeeze(1)
    greedy = torch.tensor([s.temperature == 0 for s in samplings])
    return torch.where(greedy, plain, sampled).tolist()


def _nucleus(probs_BV: Tensor, top_p_B: Tensor) -> Tensor:
    """Keep the smallest set of most likely tokens whose mass reaches top_p, renormalised."""
    ordered, order = probs_BV.sort(dim=-1, descending=True)
    keep = ordered.cumsum(-1) - ordered < top_p_B[:, None]
    kept = torch.zeros_like(probs_BV).scatter(1, order, ordered * keep)
    return kept / kept.sum(-1, keepdim=True)
