"""Grading of short answers: exact match after normalisation, aliases included. Another Scorer can take its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message
from arcforge.core.protocols import Verdict
from arcforge.envs.search.extract.normalise import folded
from arcforge.rewards.reply import final_reply

_EXACT = re.compile(r"^\W*exact answer[*\s]*:[*\s]*?(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")


def exact_answer(text: str) -> str:
    """What stands behind the last "Exact Answer:" (the answer format of BrowseComp); without one, the whole reply."""
    found = _EXACT.findall(text)
    return found[-1] if found else text.strip()


def normal_answer(text: str) -> str:
    """Without case, accents, an article, quotation marks, brackets around it, "()" and a full stop at its end."""
    text = folded(text).strip("*`\"'“”‘’ ").rstrip(".,;")
    text = _ARTICLE.sub("", text).removesuffix("()")
    return re.sub(r"^<(.*)>$", r"\1", text).strip("*`\"' ")


def is_right(reply: str, answers: Sequence[str]) -> bool:
    given = normal_answer(exact_answer(reply))
    return bool(given) and given in {normal_answer(answer) for answer in answers}


class AnswerScorer:
    """A Scorer: 1.0 iff the exact answer of the last message is `reference["answer"]` or one of `reference["aliases"]`."""

    async def score(self, messages: Sequence[Message], reference: dict[str, Any]) -> Verdict:
        if not reference.get("answer"):
            raise TaskError("the task's reference has no answer to compare with")
        reply = final_reply(messages).content
        right = is_right(reply, [reference["answer"], *reference.get("aliases", ())])
        return Verdict(reward=1.0 if right else 0.0, details={"given": exact_answer(reply)[:200]})
