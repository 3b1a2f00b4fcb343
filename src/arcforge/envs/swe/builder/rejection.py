"""Why a candidate is no environment. Rejections are counted, never hidden."""

from __future__ import annotations

from arcforge.core.errors import VerifierError


class Rejected(VerifierError):
    """The candidate is not taken; `reason` is a short code that is counted, the rest explains it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
