"""What every scorer reads: the request and the reply of a conversation, and text made comparable."""

from __future__ import annotations

import re
from collections.abc import Sequence

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message

_WORD = re.compile(r"\w+")


def final_reply(messages: Sequence[Message]) -> Message:
    """The assistant message that ends the conversation. TaskError when there is none: nothing was answered, so nothing
    can be scored."""
    if not messages or messages[-1].role != "assistant":
        last = messages[-1].role if messages else "nothing"
        raise TaskError(f"a conversation to score must end with an assistant message, not with {last}")
    return messages[-1]


def last_request(messages: Sequence[Message]) -> str:
    """The content of the last user message; empty when no user spoke."""
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def words(text: str) -> list[str]:
    """Runs of letters and digits, in order, with their case."""
    return _WORD.findall(text)


def folded_words(text: str) -> list[str]:
    return words(text.casefold())


def normalised(text: str) -> str:
    """Case folded, white space collapsed and trimmed."""
    return " ".join(text.casefold().split())
