"""The client side of an outcome reward model: a scalar from elsewhere, squashed into a reward.

Outcome reward models have low variance and can be hacked, which is why they are one part of three (GLM-5 report,
section 3.4). The model itself is a trunk with a scalar head behind the server; here is only a callable that reaches it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from arcforge.core.errors import EngineError, GatewayError, JudgeError
from arcforge.core.messages import Message
from arcforge.core.protocols import Verdict
from arcforge.rewards.reply import final_reply

RewardCall = Callable[[Sequence[Message]], Awaitable[float]]


class OutcomeScorer:
    """A Scorer over `reward(messages) -> float`: sigmoid((raw - centre) / scale), with the raw value in the details.

    centre and scale are in units of the reward model (its mean and spread on known replies). timeout in seconds.
    JudgeError when the call fails, takes too long or answers with a number that is not finite.
    """

    def __init__(self, reward: RewardCall, centre: float = 0.0, scale: float = 1.0, timeout: float = 60.0) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be positive, not {scale}")
        self._reward, self._centre, self._scale, self._timeout = reward, centre, scale, timeout

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        final_reply(messages)
        try:
            raw = float(await asyncio.wait_for(self._reward(messages), self._timeout))
        except TimeoutError:
            raise JudgeError(f"the reward model gave no answer within {self._timeout:g} s") from None
        except (EngineError, GatewayError) as error:
            raise JudgeError(f"the reward model cannot be reached: {error}") from error
        if not math.isfinite(raw):
            raise JudgeError(f"the reward model answered {raw}")
        return Verdict(reward=sigmoid((raw - self._centre) / self._scale), details={"raw": raw})


def sigmoid(x: float) -> float:
    """Logistic function without overflow at either end."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-min(x, 700.0)))
    return math.exp(max(x, -700.0)) / (1.0 + math.exp(max(x, -700.0)))
