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
    runner = engine._runner
    hidden_BTD = runner.advance([r.slot.index for r in rows], [r.slot.length for r in rows], pieces)
    logits_BTV = runner.logits(hidden_BTD)
    for i, request in enumerate(rows):
        _verify(engine, request, drafts[i], [p[i] for p in draft_probs], hidden_BTD[i], logits_BTV[i])


def _draft(engine: Engine, rows: list[Running], steps: int) -> tuple[list[list[int]], list[Tensor]]:
    """Catch the MTP cache up with verified tokens, then sample `steps` draft tokens per row; probabilities [B, V] each."""
    runner, samplings = engine._runner, [r.sampling for r in rows]
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


def _verify(
    engine: Engine, request: Running, drafts: list[int], draft_probs: list[Tensor], hidden_TD: Tensor, logits_TV: Tensor
) -> None:
    """Accept drafts with probability min(1, p / q); at the first refusal sample from max(p - q, 0), else a bonus token."""
    target_TV = distribution(logits_TV, [request.sampling] * len(logits_TV))
    engine.drafts += 1
    for k, token in enumerate([*drafts, -1]):
        request.slot.extend([request.ids[-1]])
        p_V = target_TV[k]
        accepted = False
        if token >= 0:
            q = float(draft_probs[k][token])
            accepted = request.sampler.uniform() * q < float(p_V[token])
            engine.accepted[k] += accepted
        if not accepted:
            token = _corrected(request, p_V, draft_probs[k] if token >= 0 else None)
        request.hidden_D = hidden_TD[k]
        logprob = chosen_logprobs(logits_TV[k : k + 1], target_TV[k : k + 1], torch.tensor([token]), [request.sampling])
        if engine.append(request, token, logprob[0]) or not accepted:
            return
        request.pending.append((token, hidden_TD[k]))


def _corrected(request: Running, p_V: Tensor, q_V: Tensor | None) -> int:
    residual = p_V if q_V is None else (p_V - q_V).clamp(min=0.0)
    if float(residual.sum()) <= 0.0:
        residual = p_V
    return int(draw(residual[None], [request.sampler.uniform()]))


def _padded(rows: list[list[Tensor]]) -> Tensor:
    """[B, T, D]; short rows repeat their last hidden state."""
    longest = max(len(row) for row in rows)
    return torch.stack([torch.stack(row + row[-1:] * (longest - len(row))) for row in rows])
