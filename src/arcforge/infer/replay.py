"""The replay bundle: which experts and which keys every token read, so that training can follow the very same paths.

Mismatch between engine and trainer is largest where a choice flips: in the router's top-k and in the indexer's
(GLM-5 report, section 3.2). Legend: T tokens, M MoE layers, E experts per token, L layers with a selection, K top-k.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arcforge.model.attended import Selection
from arcforge.model.trunk import GlmMoeDsa


@dataclass
class Replay:
    """experts [T, M, E] uint16; selected [T, L, K] int32: positions in ascending order, -1 where fewer were visible."""

    experts: np.ndarray
    selected: np.ndarray

    def first(self, tokens: int) -> Replay:
        return Replay(self.experts[:tokens], self.selected[:tokens])

    def extended(self, other: Replay, from_position: int) -> Replay:
        """With what `other` knows of the positions from `from_position` on; what is known already stays."""
        skip = len(self.experts) - from_position
        return Replay(
            np.concatenate((self.experts, other.experts[skip:])), np.concatenate((self.selected, other.selected[skip:]))
        )


class Recorder:
    """Listens to one forward of the trunk."""

    def __init__(self) -> None:
        self.experts: list[Tensor] = []
        self.selections: list[Selection | None] = []

    @contextmanager
    def listening(self, model: GlmMoeDsa) -> Iterator[None]:
        hooks = [
            router.register_forward_hook(lambda module, given, result: self.experts.append(result[1]))
            for router in model.routers()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def replays(self, positions_BT: Tensor, topk: int) -> list[Replay]:
        """One per row of the forward, padding included."""
        B, T = positions_BT.shape
        experts = torch.stack(self.experts, 1).view(B, T, len(self.experts), -1) if self.experts else None
        selected = torch.stack([_selected(s, positions_BT, topk) for s in self.selections], 2)
        empty = np.zeros((T, 0, 0), dtype=np.uint16)
        return [
            Replay(
                empty if experts is None else experts[b].numpy().astype(np.uint16),
                selected[b].numpy().astype(np.int32),
            )
            for b in range(B)
        ]


def _selected(selection: Selection | None, positions_BT: Tensor, topk: int) -> Tensor:
    """int64 [B, T, topk]."""
    if not selection:  # no more keys than top-k: everything up to the query itself
        keys = torch.arange(topk).expand(*positions_BT.shape, topk)
        return torch.where(keys <= positions_BT[..., None], keys, -1)
    parts = []
    for first, second in selection:
        if first.dtype != torch.bool:
            found = torch.where(second, first, torch.iinfo(torch.int64).max).sort(-1).values
            parts.append(torch.where(found < torch.iinfo(torch.int64).max, found, -1))
            continue
        S = first.shape[-1]
        found = (first * torch.arange(S, 0, -1)).topk(min(topk, S), dim=-1).values
        parts.append(torch.where(found > 0, S - found, -1))
    whole = torch.cat(parts, 1)
    return torch.nn.functional.pad(whole, (0, topk - whole.shape[-1]), value=-1)
