"""The reward of a boxed quantity: 1.0 when its dimension is right and its value within the tolerance, else 0.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message
from arcforge.core.protocols import Verdict
from arcforge.envs.checking.boxed import NO_BOX, last_boxed
from arcforge.envs.checking.client import Checker
from arcforge.rewards.reply import final_reply


class QuantityScorer:
    """A Scorer by `reference["quantity"]`: {"value", "unit", "tolerance" (relative)}. Raises TaskError for a reference that
    cannot be read and VerifierError when the checking process fails."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        if "quantity" not in reference:
            raise TaskError("the task's reference has no quantity")
        answer = last_boxed(final_reply(messages).content)
        if answer is None:
            return Verdict(reward=0.0, details={"note": NO_BOX})
        compared = await self._checker.equal("quantity", reference["quantity"], answer)
        details = {"answer": answer[:200], **({"note": compared.note} if compared.note else {})}
        return Verdict(reward=1.0 if compared.equal else 0.0, details=details)
