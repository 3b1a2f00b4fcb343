"""Which model a request may name."""

from __future__ import annotations

from arcforge.core.errors import UserError


def check_model(asked: str | None, served: str) -> None:
    """UserError for another model than the one that is served."""
    if asked not in (None, served):
        raise UserError(f"model: {asked!r:.80} is not served here; this is {served!r}")
