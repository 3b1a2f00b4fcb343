"""A door for endpoints that keep no token record: any Completer can be evaluated, ours or another's."""

from __future__ import annotations

from arcforge.core.protocols import Completer
from arcforge.core.tasks import Task
from arcforge.core.trajectory import TokenSpan


class CompleterDoor:
    """Hands the same completer to every rollout; the record it gives back is empty."""

    def __init__(self, completer: Completer) -> None:
        self._completer = completer

    def open(self, rollout_id: str, task: Task) -> Completer:
        return self._completer

    def close(self, rollout_id: str) -> list[list[TokenSpan]]:
        return []
