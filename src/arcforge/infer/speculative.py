"""MTP speculative decoding: draft with the shared MTP layer, verify in one pass, exact rejection sampling.

The MTP layer's cache holds one entry per position i, made of (embedding of token i + 1, trunk hidden of i). Entries of
verified positions come from the trunk's own hidden states; while drafting, later steps recycle the MTP layer's output
(GLM-5 report, section 2.1). The output distribution is that of plain sampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arcforge.infer.runner import at_last
from arcforge.infer.sampler import chosen_logprobs, distribution, draw

if TYPE_CHECKING:
    from arcforge.infer.engine import Engine, Running


def speculate(engine: Engine, rows: list[Running]) -> None:
    """Advance every row by 1 to drafts + 1 tokens."""
    room = min(engine.config.capacity - r.slot.length - 1 for r in rows)
    steps = max(0, min(engine.config.drafts, room - 1))
    drafts, draft_probs = _draft(engine, rows, steps)
    pieces = [[r.ids[-1], *draft] for r, draft in zip(rows, drafts, strict=True)]
    runner = engine.runner
    hidden_BTD = runner.advance([r.slot.index for r in rows], [r.slot.length for r in rows], pieces)
    samplings = [r.sampling for r in rows for _ in range(steps + 1)]
    logits_NV = runner.logits(hidden_BTD.flatten(0, 1))
    target_NV = distribution(logits_NV, samplings)
    tokens = _accept(engine, rows, drafts, draft_probs, target_NV.view(len(rows), steps + 1, -1))
    padded = [row + row[-1:] * (steps + 1 - len(row)) for row in tokens]
    chosen = chosen_logprobs(logits_NV, target_NV, torch.tensor(padded).flatten(), samplings)
    for i, request in enumerate(rows):
        _record(engine, request, tokens[i], chosen[i * (steps + 1) :], hidden_BTD[i])


def _draft(engine: Engine, rows: list[Running], steps: int) -> tuple[list[list[int]], list[Tensor]]:
    """Catch the MTP cache up with verified tokens, then sample `steps` draft tokens per row; probabilities [B, V] each."""
    runner, samplings = engine.runner, [r.sampling for r in rows]
    slots = [r.slot.index for r in rows]
    for r in rows:
        assert r.hidden_D is not None
        r.pending.append((r.ids[-1], r.hidden_D))
    pieces = [[token for token, _ in r.pending] for r in rows]
    starts = [r.drafted_to for r in rows]
    hidden_BTD = runner.draft(slots, starts, pieces, _padded([[h for _, h in r.pending] for r in rows]))
    hidden_BD = at_last(hidden_BTD, pieces)
    for r, piece in zip(rows, pieces, strict=True):
        r.drafted_to += len(piece)
        r.pending = []
    drafts: list[list[int]] = [[] for _ in rows]
    probabilities = []
    for step in range(steps):
        probs_BV = distribution(runner.logits(hidden_BD), samplings)
        ids = draw(probs_BV, [r.sampler.uniform() for r in rows]).tolist()
        probabilities.append(probs_BV)
        for draft, token in zip(drafts, ids, strict=True):
            draft.append(token)
        if step + 1 < steps:
            at = [r.drafted_to + step for r in rows]
            hidden_BD = runner.draft(slots, at, [[token] for token in ids], hidden_BD[:, None])[:, 0]
    return drafts, probabilities


def _accept(
    engine: Engine, rows: list[Running], drafts: list[list[int]], draft_probs: list[Tensor], target_BTV: Tensor
) -> list[list[int]]:
    """Per row the accepted drafts and one more token: a draft is accepted with probability min(1, p / q); at the first
    refusal the token comes from max(p - q, 0), after the last draft from p."""
    B, T, _ = target_BTV.shape
    q_BTV = torch.zeros_like(target_BTV)
    if drafts[0]:
        q_BTV[:, :-1] = torch.stack(draft_probs, 1)
        ids = torch.tensor(drafts)[..., None]
        p_of = target_BTV[:, :-1].gather(2, ids)[..., 0].tolist()
        q_of = q_BTV[:, :-1].gather(2, ids)[..., 0].tolist()
    accepted = [0] * B
    for i, request in enumerate(rows):
        while accepted[i] < T - 1 and request.sampler.uniform() * q_of[i][accepted[i]] < p_of[i][accepted[i]]:
            engine.accepted[accepted[i]] += 1
            accepted[i] += 1
    engine.drafts += B
    at = torch.arange(B), torch.tensor(accepted)
    residual_BV = (target_BTV[at] - q_BTV[at]).clamp(min=0.0)
    residual_BV = torch.where(residual_BV.sum(-1, keepdim=True) > 0, residual_BV, target_BTV[at])
    last = draw(residual_BV, [r.sampler.uniform() for r in rows]).tolist()
    return [[*draft[:n], token] for draft, n, token in zip(drafts, accepted, last, strict=True)]


def _record(engine: Engine, request: Running, tokens: list[int], logprobs: list[float], hidden_TD: Tensor) -> None:
    """Append verified tokens until the request ends; each is paired with the hidden state it was predicted from."""
    for k, token in enumerate(tokens):
        request.slot.extend([request.ids[-1]])
        request.hidden_D = hidden_TD[k]
        if engine.append(request, token, logprobs[k]) or k == len(tokens) - 1:
            return
        request.pending.append((token, hidden_TD[k]))


def _padded(rows: list[list[Tensor]]) -> Tensor:
    """[B, T, D]; short rows repeat their last hidden state."""
    longest = max(len(row) for row in rows)
    return torch.stack([torch.stack(row + row[-1:] * (longest - len(row))) for row in rows])
