"""What an examination of an environment found: its solution, an untouched state, and probes that may not score."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Admission:
    """reason: "" for what is admitted. outcomes: a reward by what was run, in order, or why the verifier said none. output: the
    end of what the tests printed in the last of them, where that is kept."""

    reason: str
    outcomes: dict[str, float | str] = field(default_factory=dict)
    seconds: float = 0.0
    output: str = ""

    @property
    def admitted(self) -> bool:
        return not self.reason
