"""The reward of a boxed mathematical answer: 1.0 when it has the value of the reference, whatever its form, else 0.0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message
from arcforge.core.protocols import Verdict
from arcforge.envs.checking.boxed import NO_BOX, last_boxed
from arcforge.envs.checking.client import Checker
from arcforge.envs.math.answers import Answer, as_set, infinite, read, refusal, tidy
from arcforge.rewards.reply import final_reply


class MathScorer:
    """A Scorer by `reference["answer"]`, LaTeX. Raises TaskError for a reference that cannot be read and VerifierError
    when the checking process fails."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        wanted = str(reference.get("answer", ""))
        if not tidy(wanted):
            raise TaskError("the task's reference has no answer")
        answer = last_boxed(final_reply(messages).content)
        if answer is None:
            return Verdict(reward=0.0, details={"note": NO_BOX})
        equal, note = await self.equal(wanted, answer)
        details = {"answer": answer[:200], **({"note": note} if note else {})}
        return Verdict(reward=1.0 if equal else 0.0, details=details)

    async def equal(self, reference: str, answer: str) -> tuple[bool, str]:
        """(whether the answer has the value of the reference, why it was refused without a comparison or "")."""
        if _plain(reference) == _plain(answer):
            return True, ""
        return await self._same(read(reference), read(answer))

    async def _same(self, wanted: Answer, given: Answer) -> tuple[bool, str]:
        match wanted.shape:
            case "number":
                return _same_number(wanted, given)
            case "text":
                return _plain(wanted.text).casefold() == _plain(given.text).casefold(), ""
            case "set":
                return await self._same_members(wanted.parts, as_set(given))
            case "union":
                pieces = given.parts if given.shape == "union" else (given,)
                return await self._same_members(wanted.parts, pieces)
            case "bracketed":
                return await self._same_in_order(wanted, given)
            case _:
                return await self._same_expression(wanted, given)

    async def _same_members(self, wanted: Sequence[Answer], given: Sequence[Answer]) -> tuple[bool, str]:
        """One to one in any order; equality is transitive, so the first partner found is as good as any. The reference says how
        many comparisons there are at most, never the answer: each may cost seconds of the only checker."""
        if len(given) != len(wanted):
            return False, f"{len(given)} parts where {len(wanted)} are asked for"
        left, note = list(given), ""
        for part in wanted:
            for place, other in enumerate(left):
                equal, why = await self._same(part, other)
                note = note or why
                if equal:
                    del left[place]
                    break
            else:
                return False, note
        return True, ""

    async def _same_in_order(self, wanted: Answer, given: Answer) -> tuple[bool, str]:
        if (given.shape, given.brackets, len(given.parts)) != ("bracketed", wanted.brackets, len(wanted.parts)):
            return False, ""
        for part, other in zip(wanted.parts, given.parts):
            equal, note = await self._same(part, other)
            if not equal:
                return False, note
        return True, ""

    async def _same_expression(self, wanted: Answer, given: Answer) -> tuple[bool, str]:
        infinity = infinite(wanted.text)
        if infinity or infinite(given.text):
            return infinity == infinite(given.text), ""
        if given.shape not in ("expression", "number"):
            return False, f"a {given.shape} where an expression is asked for"
        refused = refusal(given.text, wanted.text)
        if refused:
            return False, refused
        compared = await self._checker.equal("expression", wanted.text, given.text)
        return compared.equal, compared.note


def _same_number(wanted: Answer, given: Answer) -> tuple[bool, str]:
    if given.shape == "set" and len(given.parts) == 1:
        given = given.parts[0]
    if given.shape != "number":
        return False, "not written as one number"
    values = {wanted.value, wanted.value * 100} if wanted.percent and not given.percent else {wanted.value}
    return given.value in values, ""


def _plain(text: str) -> str:
    """Without spaces but those between digits: `1 2` is not 12."""
    return re.sub(r"(?<!\d) | (?!\d)", "", tidy(text))
