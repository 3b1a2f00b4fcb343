"""Which parameter groups train (the indexer is frozen in SFT and all RL stages; GLM-5 report, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from arcforge.core.matrix import MatrixSpec


@contextmanager
def trainable(model: nn.Module, specs: Mapping[str, MatrixSpec], groups: set[str]) -> Iterator[None]:
    """Inside the block only parameters of `groups` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(specs[name].group in groups)
    try:
        yield
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
