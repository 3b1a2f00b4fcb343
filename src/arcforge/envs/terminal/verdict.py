"""What a Harbor verifier's run says: a reward, or that it says nothing. A verifier that did not do its work is no 0.

Harbor reads /logs/verifier/reward.json (numbers by name), else reward.txt (one number), whatever wrote them. Here a reward counts only
when the verifier wrote it: the folder is emptied before it starts, a file older than its start is somebody else's, a reward of a
script that died (a signal, 126, 127, a timeout) is not believed, nor is a full one of a script that reports failure.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from arcforge.core.errors import VerifierError
from arcforge.core.protocols import Verdict

REWARD = "reward"


@dataclass(frozen=True)
class VerifierRun:
    """exit_code: of test.sh. started: when it began, in seconds on the clock that told `modified`. files: name in
    /logs/verifier -> (content, time of its last change). output: the end of what it printed, which decides nothing."""

    exit_code: int
    timed_out: bool
    started: float
    files: dict[str, tuple[str, float]]
    output: str = ""


def verdict(run: VerifierRun) -> Verdict:
    """Reward in [0, 1]. VerifierError: why there is none."""
    if run.timed_out:
        raise VerifierError("test.sh did not end in time")
    if run.exit_code < 0 or run.exit_code in (126, 127) or run.exit_code > 128:
        raise VerifierError(f"test.sh died with exit code {run.exit_code}")
    name = next((name for name in ("reward.json", "reward.txt") if name in run.files), None)
    if name is None:
        raise VerifierError("test.sh wrote neither reward.json nor reward.txt")
    content, modified = run.files[name]
    if modified < run.started:
        raise VerifierError(f"{name} is older than the verifier's start")
    rewards = _rewards(name, content)
    reward = rewards.get(REWARD, sum(rewards.values()) / len(rewards))
    if reward == 1 and run.exit_code:
        raise VerifierError(f"{name} says 1 and test.sh ended with exit code {run.exit_code}")
    if not 0 <= reward <= 1:
        raise VerifierError(f"{name}: a reward of {reward:g} is outside 0 and 1")
    return Verdict(reward=reward, details={"rewards": rewards, "exit_code": run.exit_code})


def _rewards(name: str, content: str) -> dict[str, float]:
    try:
        told: Any = json.loads(content) if name.endswith(".json") else {REWARD: float(content)}
    except ValueError as error:
        raise VerifierError(f"{name}: {error}") from None
    numbers = told if isinstance(told, dict) else None
    if not numbers or not all(_is_number(value) for value in numbers.values()):
        raise VerifierError(f"{name}: finite numbers by name are wanted, not {content[:80]!r}")
    return {key: float(value) for key, value in numbers.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
