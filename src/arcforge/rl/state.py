"""What a trainer of `rl` needs to go on after a kill: weights, optimizer and its own few values, in one file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from arcforge.core.runs import atomic_write
from arcforge.rl.policy import Policy


def save_state(path: Path, policy: Policy, **values: Any) -> None:
    """Write atomically. values: plain numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save(
        {**values, "model": policy.model.state_dict(), "optimizer": policy.optimizer.state_dict()},
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def load_state(path: Path, policy: Policy) -> dict[str, Any] | None:
    """Put weights and optimizer back and return the values; None when nothing was saved."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, map_location="cpu")
    policy.model.load_state_dict(state.pop("model"))
    policy.optimizer.load_state_dict(state.pop("optimizer"))
    return state
