"""Ids of tool calls, which public APIs need on every call and result. Our own template pairs them by order and needs none."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from arcforge.core.messages import Message


def with_call_ids(messages: Sequence[Message]) -> list[Message]:
    """The conversation with an id on every call, and on every result the id of the call it answers.

    Ids that are there stay; missing ones are call_<message>_<position>. A result without an id answers the first call of
    the last assistant message that is not yet answered.
    """
    filled: list[Message] = []
    open_ids: deque[str] = deque()
    for index, message in enumerate(messages):
        if message.tool_calls:
            calls = tuple(
                call if call.id else call.model_copy(update={"id": f"call_{index}_{position}"})
                for position, call in enumerate(message.tool_calls)
            )
            open_ids = deque(call.id for call in calls)
            message = message.model_copy(update={"tool_calls": calls})
        elif message.role == "tool" and message.tool_call_id:
            open_ids = deque(i for i in open_ids if i != message.tool_call_id)
        elif message.role == "tool" and open_ids:
            message = message.model_copy(update={"tool_call_id": open_ids.popleft()})
        filled.append(message)
    return filled
