"""The latent cache of decoding: per layer one [latent | rope key] and one indexer key per position and slot."""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.core.errors import UserError
from arcforge.model.config import CACHED, ModelConfig


class LatentCache:
    """Slots x capacity positions for every layer (trunk layers, then the MTP layer).

    keys [L, slots, capacity, kv_lora_rank + qk_rope_head_dim], indexer_keys [L, slots, capacity, index_head_dim]; memory
    is slots * capacity * L * (sum of the two widths) * 4 bytes in float32. UserError for a model with layers that have no
    form for such a cache.
    """

    def __init__(self, config: ModelConfig, slots: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        for other in sorted(set(config.attention_types) - set(CACHED)):
            raise UserError(
                f"attention_types: {other} layers read whole rows only; generation needs {' or '.join(CACHED)}"
            )
        shape = (config.num_hidden_layers + config.num_nextn_predict_layers, slots, capacity)
        self.keys = torch.zeros(*shape, config.kv_lora_rank + config.qk_rope_head_dim, dtype=dtype)
        self.indexer_keys = torch.zeros(*shape, config.index_head_dim, dtype=dtype)
        self.slots, self.capacity = slots, capacity

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another (a shared prompt is computed once)."""
        for store in (self.keys, self.indexer_keys):
            store[:, target, :length] = store[:, source, :length]


class CacheView:
    """The part of a cache that one forward reads and writes.

    slots_B: int64 slot per row. positions_BT: int64 write positions; padding repeats the row's last real position with
    equal contents, so writing it twice is harmless. span: keys 0..span-1 are read.
    """

    def __init__(self, cache: LatentCache, slots_B: Tensor, positions_BT: Tensor, span: int) -> None:
        self._cache, self._slots_B, self._span = cache, slots_B, span
        self._written = (slots_B[:, None].expand_as(positions_BT), positions_BT)

    def write(self, layer: int, keys_BTC: Tensor, indexer_keys_BTD: Tensor | None) -> None:
        """indexer_keys: None in a layer without an indexer."""
        self._cache.keys[layer].index_put_(self._written, keys_BTC.to(self._cache.keys.dtype))
        if indexer_keys_BTD is not None:
            self._cache.indexer_keys[layer].index_put_(
                self._written, indexer_keys_BTD.to(self._cache.indexer_keys.dtype)
            )

    def indexer_keys(self, layer: int) -> Tensor:
        """[B, span, index_head_dim]."""
        return self._cache.indexer_keys[layer, :, : self._span][self._slots_B]

    def keys(self, layer: int) -> Tensor:
        """[B, span, C]."""
        return self._cache.keys[layer, :, : self._span][self._slots_B]

    def selected_keys(self, layer: int, positions_BK: Tensor) -> Tensor:
        """Only the given positions of each row, [B, K, C]."""
        return self._cache.keys[layer][self._slots_B[:, None], positions_BK]
