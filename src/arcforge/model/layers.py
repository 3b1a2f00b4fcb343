"""RMSNorm, interleaved RoPE, SwiGLU and the per-batch layout that every block reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcforge.core.documents import SHARED
from arcforge.kernels.attention.naive import as_bias
from arcforge.kernels.row_tiles.naive import in_tiles, rows_times
from arcforge.kernels.select import linear, rms_norm
from arcforge.kernels.swiglu.naive import swiglu_mlp


class RMSNorm(nn.Module):
    """Root-mean-square norm with float32 statistics, cast to the input dtype before the weight (as transformers does)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Alone(nn.Module):
    """A module with matrix products. alone: compute every row as if there were no others, bit for bit (`kernels.row_tiles`)."""

    alone = False


class Linear(nn.Linear, Alone):
    """A matrix, no bias."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return rows_times(x, self.weight.T) if self.alone else linear(x, self.weight)


class SwiGLU(Alone):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, intermediate)
        self.up_proj = Linear(hidden, intermediate)
        self.down_proj = Linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        if self.alone:
            whole = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
            return in_tiles(x.flatten(0, -2), lambda tile: swiglu_mlp(tile, *whole)).view(x.shape)
        if not torch.is_grad_enabled():
            return self.down_proj(F.silu(self.gate_proj(x)).mul_(self.up_proj(x)))
        return swiglu_mlp(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


SCORE_BYTES = 512 << 20
"""No float32 [queries, keys] matrix grows larger: queries are taken in chunks."""
QUERY_CHUNK = 128
"""Most queries of a chunk: keys after its last query are not even looked at."""

STRETCH = 64
"""Keys that a query's position is rounded up to where it is computed as if alone."""


@dataclass
class Layout:
    """What every block of one forward needs to know, built once per batch.

    positions_BT: int64 rope positions of the T queries. turns_BTP: `rope_turns` of them, P = qk_rope_head_dim / 2. documents_BT: the
    queries are the keys too, each sees those before it of its own document, a run of equal ids (or of the shared prefix);
    None: the keys lie in a cache, key s at position s, `span` of them. sparse: attention reads only the indexer's top-k.
    indexer_loss: also compute KL(p || softmax(I)) for the indexer. score_bytes: budget of a float32 [B, queries, keys] matrix.
    """

    positions_BT: Tensor
    turns_BTP: Tensor
    documents_BT: Tensor | None
    span: int
    sparse: bool = False
    indexer_loss: bool = False
    score_bytes: int = SCORE_BYTES
    _masks: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    _biases: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    @property
    def cached(self) -> bool:
        return self.documents_BT is None

    @cached_property
    def starts_rows(self) -> bool:
        """Whether several queries begin every row: all keys that they see are their own."""
        return self.positions_BT.shape[1] > 1 and not bool(self.positions_BT[:, 0].any())

    @property
    def fits(self) -> bool:
        """Whether all queries' scores stay within the budget."""
        B, T = self.positions_BT.shape
        return 4 * B * T * self.span <= self.score_bytes

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges of queries whose scores stay within the budget."""
        B, T = self.positions_BT.shape
        size = max(1, min(T, QUERY_CHUNK, self.score_bytes // (4 * B * self.span)))
        for start in range(0, T, size):
            yield start, min(T, start + size)

    def stretches(self) -> Iterator[tuple[int, int, int, int]]:
        """(row, start, end, span): the queries start..end-1 of a row, among the first `span` keys of the cache. The span, a
        multiple of STRETCH, follows from their positions alone; all queries of a stretch have the same."""
        groups_BT = self.positions_BT // STRETCH
        for row, groups in enumerate(groups_BT.tolist()):
            start = 0
            while start < len(groups):
                end = start + 1
                while end < len(groups) and groups[end] == groups[start]:
                    end += 1
                yield row, start, end, (groups[start] + 1) * STRETCH
                start = end

    def keys_of(self, end: int) -> int:
        """How many keys the queries before `end` can see at most."""
        return self.span if self.cached else end

    @cached_property
    def _begins_BT(self) -> Tensor | None:
        """Where each query's document begins in the row; None where a prefix is shared, which lies before all of its readers.
        A document is a run of equal ids."""
        assert self.documents_BT is not None
        ids_BT = self.documents_BT
        if bool((ids_BT == SHARED).any()):
            return None
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        changed_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        changed_BT[:, 1:] = ids_BT[:, 1:] != ids_BT[:, :-1]
        return (places_T * changed_BT).cummax(1).values

    def first_key(self, start: int, window: int = 0) -> int:
        """The queries from `start` on see no key before this one."""
        if self._begins_BT is None:
            return 0
        return max(int(self._begins_BT[:, start].min()), start - window + 1 if window else 0)

    def visible(self, start: int, end: int, window: int = 0) -> Tensor:
        """Bool [B, end - start, keys_of(end)]: what the queries start..end-1 may look at, at most `window` positions back,
        their own included (0: all). Kept for the layers to come where everything fits the budget."""
        known = self._masks.get((start, end, window))
        if known is not None:
            return known
        mask_BTS = self._visible(start, end, window)
        if self.fits:
            self._masks[start, end, window] = mask_BTS
        return mask_BTS

    def bias(self, start: int, end: int, window: int = 0) -> Tensor:
        """`visible` as float32 to add to scores, 0 or very low; kept in the same way."""
        key = (start, end, window)
        known = self._biases.get(key)
        if known is None:
            known = as_bias(self.visible(start, end, window))
            if self.fits:
                self._biases[key] = known
        return known

    def _visible(self, start: int, end: int, window: int) -> Tensor:
        queries_BT1 = self.positions_BT[:, start:end, None]
        keys = torch.arange(self.keys_of(end), device=self.positions_BT.device)
        if self.documents_BT is None:
            positions_BS = keys[None]
            allowed_BTS = keys <= queries_BT1
        else:
            positions_BS = self.positions_BT[:, :end]
            owners_B1S = self.documents_BT[:, None, :end]
            same_BTS = (self.documents_BT[:, start:end, None] == owners_B1S) | (owners_B1S == SHARED)
            allowed_BTS = same_BTS & (keys <= torch.arange(start, end, device=keys.device)[:, None])
        return allowed_BTS & (queries_BT1 - positions_BS[:, None] < window) if window else allowed_BTS


def rope_turns(positions_BT: Tensor, dims: int, theta: float) -> Tensor:
    """What RoPE turns each pair of dimensions by, as complex numbers of length 1, complex64 [B, T, dims / 2]."""
    inverse = 1.0 / (theta ** (torch.arange(0, dims, 2, dtype=torch.float32, device=positions_BT.device) / dims))
    angles = positions_BT[..., None].float() * inverse
    return torch.complex(angles.cos(), angles.sin())


class RopeTable:
    """Turns by position, computed once: on a CPU the last bit of a cosine may depend on how many are asked for."""

    def __init__(self, dims: int, theta: float) -> None:
        self._dims, self._theta = dims, theta
        self._turns_NP = torch.empty(0, dtype=torch.complex64)

    def at(self, positions_BT: Tensor, span: int) -> Tensor:
        """`rope_turns` of positions below `span`."""
        if len(self._turns_NP) < span or self._turns_NP.device != positions_BT.device:
            length = max(1024, 1 << (span - 1).bit_length())
            self._turns_NP = rope_turns(torch.arange(length, device=positions_BT.device), self._dims, self._theta)
        return self._turns_NP[positions_BT]


def rotate(x_BTHP: Tensor, turns_BTP: Tensor, alone: bool = False) -> Tensor:
    """Interleaved RoPE on [B, T, H, P]: neighbours are the parts of a complex number. alone: every operation is rounded by
    itself, so that the result does not depend on how many there are."""
    turns_BT1P = turns_BTP.unsqueeze(2)
    pairs = x_BTHP.float().unflatten(-1, (-1, 2))
    if alone:
        (even, odd), cos, sin = pairs.unbind(-1), turns_BT1P.real, turns_BT1P.imag
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turns_BT1P)
    return turned.flatten(-2).to(x_BTHP.dtype)
