"""From logits to tokens. Legend: B rows, V vocabulary, N likeliest ids."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from arcforge.core.messages import Sampling

Likeliest = list[tuple[int, float]]
"""(id, log-probability), best first."""


class RequestSampler:
    """The random stream of one request: its tokens do not depend on what else is in the batch (up to rounding)."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed)

    def uniform(self) -> float:
        return self._random.random()


def sample(logits_BV: Tensor, samplers: list[RequestSampler]) -> tuple[list[int], list[float], list[Likeliest]]:
    """One token per row, its log-probability (`chosen_logprobs`), and the likeliest ids (`likeliest`)."""
    samplings = [s.sampling for s in samplers]
    if all(s.temperature == 0 and not s.logit_bias and not s.top_logprobs for s in samplings):
        values_B1, ids_B1 = logits_BV.softmax(-1).max(-1, keepdim=True)
        return ids_B1.flatten().tolist(), [row[0] for row in _logs(values_B1)], [[] for _ in samplings]
    probs_BV = distribution(logits_BV, samplings)
    ids_B = draw(probs_BV, [s.uniform() for s in samplers])
    logprobs = chosen_logprobs(logits_BV, probs_BV, ids_B, samplings)
    return ids_B.tolist(), logprobs, likeliest(logits_BV, probs_BV, samplings)


def distribution(logits_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    """The distribution that each row is sampled from, float32 [B, V]; temperature 0 is one-hot at the maximum.

    In this order: logit bias, temperature, min-p, top-k, top-p; what a filter leaves is renormalised.
    """
    logits_BV = _biased(logits_BV.float(), samplings)
    temperatures = torch.tensor([s.temperature for s in samplings])
    scaled_BV = logits_BV / temperatures.clamp(min=1e-6)[:, None] if (temperatures != 1).any() else logits_BV
    probs_BV = scaled_BV.softmax(-1)
    if any(s.top_p < 1 or s.top_k > 0 or s.min_p > 0 for s in samplings):
        probs_BV = _filtered(probs_BV, samplings)
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
    return [row[0] for row in _logs(_told(logits_BV, probs_BV, samplings).gather(1, ids_B[:, None]))]


def likeliest(logits_BV: Tensor, probs_BV: Tensor, samplings: list[Sampling]) -> list[Likeliest]:
    """Per row the `top_logprobs` likeliest ids with their log-probabilities as in `chosen_logprobs`; [] where none are
    asked for. Ids that the filters removed are not among them."""
    most = max((s.top_logprobs for s in samplings), default=0)
    if not most:
        return [[] for _ in samplings]
    told_BN, ids_BN = _told(logits_BV, probs_BV, samplings).topk(min(most, logits_BV.shape[-1]), dim=-1)
    table = zip(ids_BN.tolist(), _logs(told_BN), samplings, strict=True)
    return [
        [(i, value) for i, value in zip(ids, values) if value > IMPOSSIBLE][: sampling.top_logprobs]
        for ids, values, sampling in table
    ]


TINIEST = 1e-38
IMPOSSIBLE = math.log(2 * TINIEST)


def _told(logits_BV: Tensor, probs_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    """The distribution that log-probabilities are told of."""
    if all(s.temperature > 0 for s in samplings):
        return probs_BV
    greedy_B = torch.tensor([s.temperature == 0 for s in samplings])
    return torch.where(greedy_B[:, None], logits_BV.float().softmax(-1), probs_BV)


def _logs(probs_BN: Tensor) -> list[list[float]]:
    """In Python: a tensor's log may differ in its last bit with the tensor's size."""
    return [[math.log(max(p, TINIEST)) for p in row] for row in probs_BN.tolist()]


def _biased(logits_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    if not any(s.logit_bias for s in samplings):
        return logits_BV
    biased_BV = logits_BV.clone()
    for row, sampling in enumerate(samplings):
        for token, bias in sampling.logit_bias.items():
            biased_BV[row, token] += bias
    return biased_BV


def _filtered(probs_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    """Keep ids of at least min_p of the likeliest's probability, of those the top_k likeliest, of those the smallest set whose
    mass reaches top_p."""
    V = probs_BV.shape[-1]
    ordered, order = probs_BV.sort(dim=-1, descending=True, stable=True)
    floor_B1 = torch.tensor([s.min_p for s in samplings])[:, None] * ordered[:, :1]
    most_B1 = torch.tensor([s.top_k if s.top_k > 0 else V for s in samplings])[:, None]
    ordered = ordered * ((ordered >= floor_B1) & (torch.arange(V) < most_B1))
    ordered = ordered / ordered.sum(-1, keepdim=True)
    nucleus_B1 = torch.tensor([s.top_p for s in samplings])[:, None]
    ordered = ordered * ((ordered.cumsum(-1) - ordered < nucleus_B1) | (nucleus_B1 >= 1))
    return torch.zeros_like(probs_BV).scatter(1, order, ordered / ordered.sum(-1, keepdim=True))
