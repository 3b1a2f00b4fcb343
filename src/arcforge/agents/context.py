"""What a model sees of a history, as pure functions: events are decided from messages, and messages follow from events.

The events of an episode are its whole state. `applied(messages[:n], events)` is what the request that led to message n was
sent with, at any time afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.core.messages import Message
from arcforge.core.protocols import ContextEvent

OMITTED = "Tool result is omitted to save tokens."
_SHOWN, _OMITTED, _CLEARED = range(3)


def applied(messages: Sequence[Message], events: Sequence[ContextEvent]) -> list[Message]:
    """The messages as the events leave them; events of a longer history than this one are not yet due."""
    marks, clear = _marks(messages, events), _last_clearing(messages, events)
    view: list[Message] = []
    for index, message in enumerate(messages):
        if clear and clear.text and index == clear.stop:
            view.append(Message(role="user", content=clear.text))
        if marks[index] == _OMITTED and message.role == "tool":
            message = message.model_copy(update={"content": OMITTED})
        if marks[index] != _CLEARED:
            view.append(message)
    if clear and clear.text and clear.stop == len(messages):
        view.append(Message(role="user", content=clear.text))
    return view


def clearing(
    messages: Sequence[Message], events: Sequence[ContextEvent], tokens: int, threshold: int, policy: str
) -> ContextEvent | None:
    """A "discard" of all that follows the opening once the last turn took more than `threshold` tokens, if anything does.

    The opening reaches to the last user message: system message and question stay. A turn whose results are not all there
    stays whole.
    """
    clear = _last_clearing(messages, events)
    start, stop = max(opening(messages), clear.stop if clear else 0), settled(messages)
    if tokens <= threshold or start >= stop:
        return None
    gone = messages[start:stop]
    return ContextEvent(
        policy=policy,
        action="discard",
        at=len(messages),
        start=start,
        stop=stop,
        count=len(gone),
        characters=sum(_characters(message) for message in gone),
        tokens_before=tokens,
    )


def omission(
    messages: Sequence[Message], events: Sequence[ContextEvent], tokens: int, keep: int, policy: str
) -> ContextEvent | None:
    """An "omit" of every observation before the last `keep`, if one is shown in full.

    An observation is all that the calls of one turn gave, so that no result of parallel calls goes before it was seen.
    """
    marks = _marks(messages, events)
    shown = [place for place in observations(messages) if marks[place.start] != _CLEARED]
    old = [index for place in shown[: max(0, len(shown) - keep)] for index in place if marks[index] == _SHOWN]
    if not old:
        return None
    return ContextEvent(
        policy=policy,
        action="omit",
        at=len(messages),
        start=old[0],
        stop=old[-1] + 1,
        count=len(old),
        characters=sum(len(messages[index].content) for index in old),
        tokens_before=tokens,
    )


def opening(messages: Sequence[Message]) -> int:
    """Length of the opening: to the last user message; without one, to the first answer."""
    last = max((i + 1 for i, message in enumerate(messages) if message.role == "user"), default=0)
    return last or next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))


def settled(messages: Sequence[Message]) -> int:
    """Length of the history without a last turn that still waits for results of its calls."""
    last = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=len(messages))
    results = sum(message.role == "tool" for message in messages[last + 1 :])
    waiting = last < len(messages) and results < len(messages[last].tool_calls)
    return last if waiting else len(messages)


def observations(messages: Sequence[Message]) -> list[range]:
    """Indices of the tool results of each turn that has any, in order."""
    found: list[range] = []
    for index, message in enumerate(messages):
        if message.role != "tool":
            continue
        if found and found[-1].stop == index:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


def _marks(messages: Sequence[Message], events: Sequence[ContextEvent]) -> bytearray:
    """_SHOWN, _OMITTED or _CLEARED for each message. What is cleared stays so, whichever event came last."""
    marks = bytearray(len(messages))
    for mark, actions in ((_OMITTED, ("omit",)), (_CLEARED, ("discard", "summarize"))):
        for event in events:
            if event.action in actions and event.at <= len(messages):
                marks[event.start : event.stop] = bytes([mark]) * (event.stop - event.start)
    return marks


def _last_clearing(messages: Sequence[Message], events: Sequence[ContextEvent]) -> ContextEvent | None:
    due = (event for event in reversed(events) if event.at <= len(messages))
    return next((event for event in due if event.action != "omit"), None)


def _characters(message: Message) -> int:
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning or "") + calls
