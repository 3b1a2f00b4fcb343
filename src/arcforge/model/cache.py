"""The paged latent cache of decoding: per layer one [latent | rope key] and one indexer key per position, in blocks that any
request may read. Legend: B rows, T new tokens, S keys, K selected keys, X blocks of a row, C latent + rope.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.kernels.select import paged_mqa
from arcforge.model.config import CACHED, ModelConfig

BLOCK = 16
"""Tokens per block: the unit of allocation and of prefix sharing."""


class PagedCache:
    """Blocks of `BLOCK` positions for every layer (trunk layers, then the MTP layer).

    keys [L, blocks * BLOCK, kv_lora_rank + qk_rope_head_dim], indexer_keys [L, blocks * BLOCK, index_head_dim]; memory is
    blocks * BLOCK * L * (sum of the two widths) elements. UserError for a model with layers that have no form for such a
    cache.
    """

    def __init__(
        self,
        config: ModelConfig,
        blocks: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for other in sorted(set(config.attention_types) - set(CACHED)):
            raise UserError(
                f"attention_types: {other} layers read whole rows only; generation needs {' or '.join(CACHED)}"
            )
        shape = (config.num_hidden_layers + config.num_nextn_predict_layers, blocks * BLOCK)
        self.keys = torch.zeros(*shape, config.kv_lora_rank + config.qk_rope_head_dim, dtype=dtype, device=device)
        self.indexer_keys = torch.zeros(*shape, config.index_head_dim, dtype=dtype, device=device)
        self.blocks = blocks

    @staticmethod
    def blocks_for(tokens: int) -> int:
        return -(-tokens // BLOCK)


class CacheView:
    """The part of a cache that one forward reads and writes.

    tables_BX: int64 blocks of each row in order; rows with fewer repeat any block, whose keys lie after all their queries.
    positions_BT: int64 write positions; padding repeats the row's last real position with equal contents, so writing it
    twice is harmless. Keys 0..span-1 are read, span = X * BLOCK.
    """

    def __init__(self, cache: PagedCache, tables_BX: Tensor, positions_BT: Tensor) -> None:
        self._cache, self._tables_BX = cache, tables_BX
        self._written_N = self._places(positions_BT).flatten()
        self.span = tables_BX.shape[1] * BLOCK

    def _places(self, positions: Tensor) -> Tensor:
        """Where positions [B, N] of each row lie in the cache."""
        return self._tables_BX.gather(1, positions // BLOCK) * BLOCK + positions % BLOCK

    def write(self, layer: int, keys_BTC: Tensor, indexer_keys_BTD: Tensor | None) -> None:
        """indexer_keys: None in a layer without an indexer."""
        store = self._cache.keys[layer]
        store.index_copy_(0, self._written_N, keys_BTC.flatten(0, 1).to(store.dtype))
        if indexer_keys_BTD is not None:
            store = self._cache.indexer_keys[layer]
            store.index_copy_(0, self._written_N, indexer_keys_BTD.flatten(0, 1).to(store.dtype))

    def indexer_keys(self, layer: int) -> Tensor:
        """[B, span, index_head_dim]."""
        return self._read(self._cache.indexer_keys[layer])

    def keys(self, layer: int) -> Tensor:
        """[B, span, C]."""
        return self._read(self._cache.keys[layer])

    def row(self, layer: int, row: int, span: int) -> tuple[Tensor, Tensor]:
        """Keys [span, C] and indexer keys [span, index_head_dim] of one row; span: a multiple of BLOCK."""
        blocks = self._tables_BX[row, : span // BLOCK]
        keys, indexer_keys = (
            store[layer].view(self._cache.blocks, -1).index_select(0, blocks).view(span, -1)
            for store in (self._cache.keys, self._cache.indexer_keys)
        )
        return keys, indexer_keys

    def attended(self, layer: int, q_BHC: Tensor, first_B: Tensor, last_B: Tensor, rank: int, scale: float) -> Tensor:
        """Latents [B, H, R] that one query per row attends over keys first..last of its row."""
        return paged_mqa(q_BHC, self._cache.keys[layer], self._tables_BX, BLOCK, first_B, last_B, rank, scale)

    def attended_at(
        self, layer: int, q_BHC: Tensor, positions_BK: Tensor, chosen_BK: Tensor, rank: int, scale: float
    ) -> Tensor:
        """The same over the positions that are chosen."""
        places_BK = torch.where(chosen_BK, self._places(positions_BK), -1)
        first_B = torch.zeros_like(places_BK[:, 0])
        last_B = first_B + (places_BK.shape[1] - 1)
        return paged_mqa(q_BHC, self._cache.keys[layer], places_BK, 1, first_B, last_B, rank, scale)

    def _read(self, store_NC: Tensor) -> Tensor:
        blocks = store_NC.view(self._cache.blocks, -1)
        rows = blocks.index_select(0, self._tables_BX.flatten())
        return rows.view(self._tables_BX.shape[0], self.span, store_NC.shape[-1])
