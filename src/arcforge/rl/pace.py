"""How fast to generate: rollouts at once, adapted to what the buffer needs (GLM-5 report, section 4.1.1).

Admission control bounds how stale a rollout can become; within that bound, rollouts that finish long before the trainer takes
them are staler than they need be and take the cores from it. So the limit falls while whole batches wait, and rises while the
trainer does: multiplicatively both ways, at most once per interval.
"""

from __future__ import annotations

SPARE_BATCHES = 1.5
"""Finished batches that may wait before generation slows down."""
SLOWER, FASTER = 0.9, 1.25
INTERVAL = 1.0
"""Seconds between two changes."""


class Pace:
    """most: rollouts at once. batch: groups that the trainer takes at a time. The limit stays between an eighth of `most`
    (at least 1) and `most`."""

    def __init__(self, most: int, batch: int) -> None:
        self._most, self._batch = most, batch
        self._limit, self._changed = float(most), float("-inf")

    @property
    def limit(self) -> int:
        return max(1, round(self._limit))

    def look(self, ready: int, now: float) -> bool:
        """Take in how many finished groups wait at time `now` (s); whether the limit changed."""
        if now - self._changed < INTERVAL:
            return False
        before = self.limit
        if ready > SPARE_BATCHES * self._batch:
            self._limit = max(1.0, self._most / 8, self._limit * SLOWER)
        elif ready < self._batch:
            self._limit = min(float(self._most), self._limit * FASTER)
        if self.limit == before:
            return False
        self._changed = now
        return True
