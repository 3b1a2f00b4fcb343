"""Runs the model on rows of cached requests: prefill, decode, MTP drafts. Legend: B rows, T new tokens, D hidden, V vocabulary,
X blocks of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.core.errors import EngineError
from arcforge.infer.replay import Recorder, Replay
from arcforge.model.cache import PagedCache
from arcforge.model.trunk import GlmMoeDsa


class Runner:
    """Forwards over the paged cache. Rows shorter than the longest repeat their last token at its position."""

    def __init__(self, model: GlmMoeDsa, cache: PagedCache) -> None:
        self.model, self.cache = model, cache

    def advance(self, tables: list[list[int]], starts: list[int], rows: list[list[int]]) -> Tensor:
        """Process new tokens of each row at positions start..; returns hidden after the final norm [B, T, D]."""
        ids_BT, positions_BT = pad(rows, starts)
        view, layout = self.model.cache_view(self.cache, pad_tables(tables, starts, rows), positions_BT)
        return self.model.decode(ids_BT, layout, view)

    def recorded(
        self, tables: list[list[int]], starts: list[int], rows: list[list[int]]
    ) -> tuple[Tensor, list[Replay]]:
        """`advance`, and what every row's tokens read."""
        recorder = Recorder()
        ids_BT, positions_BT = pad(rows, starts)
        view, layout = self.model.cache_view(self.cache, pad_tables(tables, starts, rows), positions_BT)
        with recorder.listening(self.model):
            hidden_BTD = self.model.decode(ids_BT, layout, view, recorder.selections)
        replays = recorder.replays(positions_BT, self.model.config.index_topk)
        return hidden_BTD, [replay.first(len(row)) for replay, row in zip(replays, rows, strict=True)]

    def draft(self, tables: list[list[int]], starts: list[int], rows: list[list[int]], hidden_BTD: Tensor) -> Tensor:
        """MTP over (next token, hidden) pairs at positions start..; returns the recycled hidden [B, T, D]."""
        ids_BT, positions_BT = pad(rows, starts)
        view, layout = self.model.cache_view(self.cache, pad_tables(tables, starts, rows), positions_BT)
        return self.model.draft(ids_BT, hidden_BTD, layout, view)

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """float32 [B, V]. EngineError where the model gives no numbers: nothing may be sampled from those."""
        logits_BV = self.model.lm_head(hidden_BD).float()
        if not bool(torch.isfinite(logits_BV.sum())):
            raise EngineError("the model's logits are not finite; its weights are broken")
        return logits_BV


def pad_tables(tables: list[list[int]], starts: list[int], rows: list[list[int]]) -> Tensor:
    """Blocks of each row up to its last new token, [B, X]; shorter rows repeat their last block."""
    counts = [PagedCache.blocks_for(start + len(row)) for start, row in zip(starts, rows, strict=True)]
    longest = max(counts)
    return torch.tensor([table[:n] + table[n - 1 : n] * (longest - n) for table, n in zip(tables, counts, strict=True)])


def pad(rows: list[list[int]], starts: list[int]) -> tuple[Tensor, Tensor]:
    """ids and positions [B, T]; padding repeats the last token at the last position, which writes the same values again."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    offsets = torch.minimum(torch.arange(longest)[None], lengths[:, None] - 1)
    return ids, torch.tensor(starts)[:, None] + offsets


def at_last(hidden_BTD: Tensor, rows: list[list[int]]) -> Tensor:
    """Hidden of each row's last real token, [B, D]."""
    return hidden_BTD[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]


CALL_TOKENS = 80
"""What one more forward costs, in padded tokens. Measured with models of 1M to 20M: 63 to 125 with two threads, 32 to 92 with one."""


def by_length(lengths: list[int]) -> list[list[int]]:
    """Indices in groups of similar length: padding a short row to a long one costs more than another forward."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups, start = [], 0
    while start < len(order):
        rest = [lengths[i] for i in order[start:]]
        costs = [n * rest[n - 1] + (len(rest) - n) * rest[-1] + CALL_TOKENS for n in range(1, len(rest))]
        whole = len(rest) * rest[-1]
        best = min(range(len(costs)), key=costs.__getitem__) + 1 if costs and min(costs) < whole else len(rest)
        groups.append(order[start : start + best])
        start += best
    return groups
