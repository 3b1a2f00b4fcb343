"""The latent cache of decoding: per layer one latent, one rope key and one indexer key per position and slot."""

from __future__ import annotations

import torch
from torch import Tensor

from arcforge.model.config import ModelConfig


class LatentCache:
    """Slots x capacity positions for every layer (trunk layers, then the MTP layer).

    latents [L, slots, capacity, kv_lora_rank], rope_keys [L, slots, capacity, qk_rope_head_dim],
    indexer_keys [L, slots, capacity, index_head_dim]; memory is slots * capacity * (sum of the three) * 4 bytes in fp32.
    """

    def __init__(self, config: ModelConfig, slots: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        layers = config.num_hidden_layers + config.num_nextn_predict_layers
        shape = (layers, slots, capacity)
        self.latents = torch.zeros(*shape, config.kv_lora_rank, dtype=dtype)
        self.rope_keys = torch.zeros(*shape, config.qk_rope_head_dim, dtype=dtype)
        self.indexer_keys = torch.zeros(*shape, config.index_head_dim, dtype=dtype)
        self.slots, self.capacity = slots, capacity

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another (a shared prompt is computed once)."""
        for store in (self.latents, self.rope_keys, self.indexer_keys):
            store[:, target, :length] = store[:, source, :length]


class CacheView:
    """The part of a cache that one forward reads and writes.

    slots_B: int64 slot per row. positions_BT: int64 write positions; padding repeats the row's last real position with
    equal contents, so writing it twice is harmless. span: keys 0..span-1 are read.
    """

    def __init__(self, cache: LatentCache, slots_B: Tensor, positions_BT: Tensor, span: int) -> None:
        self._cache, self._slots_B, self._span = cache, slots_B, span
        self._index = (slots_B[:, None].expand_as(positions_BT), positions_BT)

    def extend(self, layer: int, latent_BTR: Tensor, rope_BTP: Tensor) -> tuple[Tensor, Tensor]:
        """Write new latents and rope keys; return those of positions 0..span-1: [B, S, R] and [B, S, P]."""
        return self._swap(self._cache.latents[layer], latent_BTR), self._swap(self._cache.rope_keys[layer], rope_BTP)

    def extend_indexer(self, layer: int, key_BTD: Tensor) -> Tensor:
        return self._swap(self._cache.indexer_keys[layer], key_BTD)

    def _swap(self, store: Tensor, new: Tensor) -> Tensor:
        store.index_put_(self._index, new.to(store.dtype))
        return store[:, : self._span][self._slots_B]
