"""MTP speculative decoding: draft with the shared MTP layer, verify in one pass, exact rejection sampling. Legend: B rows, T
positions verified, V vocabulary, D hidden.

The MTP layer's cache holds one entry per position i, made of (embedding of token i + 1, trunk hidden of i). Entries of
verified positions come from the trunk's own hidden states; while drafting, later steps recycle the MTP layer's output
(GLM-5 report, section 2.1). The output distribution is that of plain sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arcforge.infer.request import Request
from arcforge.infer.runner import Runner, at_last
from arcforge.infer.sampler import Likeliest, chosen_logprobs, distribution, draw, likeliest


@dataclass
class Verified:
    """A token that the trunk stands behind, and the trunk's hidden state that it was sampled from."""

    token: int
    logprob: float
    top_logprobs: Likeliest
    hidden_D: Tensor


class Speculator:
    """Drafts `most` tokens per step, fewer where a request has no room for them."""

    def __init__(self, runner: Runner, most: int, max_length: int) -> None:
        self._runner, self._most, self._max_length = runner, most, max_length
        self.accepted = [0] * most
        self.drafts = 0

    @property
    def stats(self) -> dict[str, float]:
        """acceptance_length: mean tokens per verification, 1 + accepted / drafts, the bonus token included (as vLLM counts);
        accepted_at_i: share of the drafts whose i-th token was accepted."""
        drafts = max(1, self.drafts)
        rates = {f"accepted_at_{i + 1}": count / drafts for i, count in enumerate(self.accepted)}
        return {"drafts": self.drafts, "acceptance_length": 1 + sum(self.accepted) / drafts, **rates}

    def advance(self, rows: list[Request]) -> list[tuple[Request, list[Verified]]]:
        """Every row's next 1 to drafts + 1 tokens; nothing of the rows but their MTP cache has moved."""
        room = min(self._max_length - r.computed - 1 for r in rows)
        steps = max(0, min(self._most, room - 1))
        drafts, draft_probs = self._draft(rows, steps)
        pieces = [[r.tokens[-1], *draft] for r, draft in zip(rows, drafts, strict=True)]
        hidden_BTD = self._runner.advance([r.table for r in rows], [r.computed for r in rows], pieces)
        samplings = [r.sampling for r in rows for _ in range(steps + 1)]
        logits_NV = self._runner.logits(hidden_BTD.flatten(0, 1))
        target_NV = distribution(logits_NV, samplings)
        tokens = self._accept(rows, drafts, draft_probs, target_NV.view(len(rows), steps + 1, -1))
        padded = [row + row[-1:] * (steps + 1 - len(row)) for row in tokens]
        chosen = chosen_logprobs(logits_NV, target_NV, torch.tensor(padded).flatten(), samplings)
        tops = likeliest(logits_NV, target_NV, samplings)
        return [
            (
                request,
                [
                    Verified(token, chosen[i * (steps + 1) + k], tops[i * (steps + 1) + k], hidden_BTD[i, k])
                    for k, token in enumerate(tokens[i])
                ],
            )
            for i, request in enumerate(rows)
        ]

    def _draft(self, rows: list[Request], steps: int) -> tuple[list[list[int]], list[Tensor]]:
        """Catch the MTP cache up with verified tokens, then sample `steps` draft tokens per row; probabilities [B, V] each."""
        runner, samplings, tables = self._runner, [r.sampling for r in rows], [r.table for r in rows]
        for r in rows:
            assert r.hidden_D is not None
            r.pending.append((r.tokens[-1], r.hidden_D))
        pieces = [[token for token, _ in r.pending] for r in rows]
        starts = [r.drafted_to for r in rows]
        hidden_BTD = runner.draft(tables, starts, pieces, _padded([[h for _, h in r.pending] for r in rows]))
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
                hidden_BD = runner.draft(tables, at, [[token] for token in ids], hidden_BD[:, None])[:, 0]
        return drafts, probabilities

    def _accept(
        self, rows: list[Request], drafts: list[list[int]], draft_probs: list[Tensor], target_BTV: Tensor
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
            self.drafts += B
        accepted = [0] * B
        for i, request in enumerate(rows):
            while accepted[i] < T - 1 and request.sampler.uniform() * q_of[i][accepted[i]] < p_of[i][accepted[i]]:
                self.accepted[accepted[i]] += 1
                accepted[i] += 1
        at = torch.arange(B), torch.tensor(accepted)
        residual_BV = (target_BTV[at] - q_BTV[at]).clamp(min=0.0)
        residual_BV = torch.where(residual_BV.sum(-1, keepdim=True) > 0, residual_BV, target_BTV[at])
        last = draw(residual_BV, [r.sampler.uniform() for r in rows]).tolist()
        return [[*draft[:n], token] for draft, n, token in zip(drafts, accepted, last, strict=True)]


def _padded(rows: list[list[Tensor]]) -> Tensor:
    """[B, T, D]; short rows repeat their last hidden state."""
    longest = max(len(row) for row in rows)
    return torch.stack([torch.stack(row + row[-1:] * (longest - len(row))) for row in rows])
