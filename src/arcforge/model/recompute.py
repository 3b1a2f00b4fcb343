"""Tensors that the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


def computed_again(
    tensors: Mapping[str, Tensor], again: Callable[[], Mapping[str, Tensor]]
) -> AbstractContextManager[Any]:
    """What operations inside of the context keep for their backward pass leaves out these tensors; `again` gives them anew, all
    at once, when the first one is asked for. It must hold on to nothing large that is not kept anyway."""
    # Addresses, not tensors: the graph holds on to both functions.
    names = {(tensor.data_ptr(), tensor.shape): name for name, tensor in tensors.items()}
    ready: dict[str, Tensor] = {}

    def pack(kept: Tensor) -> Tensor | str:
        return names.get((kept.data_ptr(), kept.shape), kept)

    def unpack(kept: Tensor | str) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if kept not in ready:
            with torch.no_grad():
                ready.update(again())
        return ready.pop(kept)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
