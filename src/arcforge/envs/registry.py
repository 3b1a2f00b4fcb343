"""Task families by name."""

from __future__ import annotations

from collections.abc import Callable

from arcforge.core.errors import UserError
from arcforge.core.tasks import Family
from arcforge.envs.chat.family import ChatFamily
from arcforge.envs.reason.family import ReasonFamily
from arcforge.envs.recall.family import RecallFamily
from arcforge.envs.swe.family import SweFamily

FAMILIES: dict[str, Callable[[int], Family]] = {
    "swe": SweFamily,
    "reason": ReasonFamily,
    "chat": ChatFamily,
    "recall": RecallFamily,
}


def family(name: str, seed: int = 0) -> Family:
    """A new family. UserError names the families there are."""
    if name not in FAMILIES:
        raise UserError(f"task family {name!r}: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name](seed)
