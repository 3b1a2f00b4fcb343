"""A run whose context was reset, as ATIF: one document per context, each naming the one that goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from arcforge.core.messages import Message, ToolSpec
from arcforge.core.protocols import ContextEvent
from arcforge.rollout.atif import atif


def atif_contexts(
    messages: Sequence[Message],
    events: Sequence[ContextEvent],
    *,
    session_id: str,
    agent: str,
    version: str,
    model: str = "",
    tools: Sequence[ToolSpec] = (),
    metrics: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """The documents by file name: trajectory.json, then trajectory.cont-1.json and so on, one for each reset by `events`.

    Steps that a context takes over from the one before it are marked `is_copied_context`: they were told, and trained on, there.
    Results stand in full where they came; that the model saw one only for some turns is told by the "omit" events, which each
    document has in `extra` with the event that began it. metrics: of each assistant turn of the history; `extra` as for `atif`.
    """
    told = iter(metrics)
    contexts = _contexts(messages, events)
    found: dict[str, dict[str, Any]] = {}
    for number, (copied, fresh, its_events) in enumerate(contexts):
        document = atif(
            [*copied, *fresh],
            session_id=f"{session_id}-cont-{number}" if number else session_id,
            agent=agent,
            version=version,
            model=model,
            tools=tools,
            metrics=[*({} for _ in range(_turns(copied))), *islice(told, _turns(fresh))],
            extra={**(extra or {}), **({"context_events": its_events} if its_events else {})},
        )
        for step in document["steps"][: sum(message.role != "tool" for message in copied)]:
            step["is_copied_context"] = True
        if number + 1 < len(contexts):
            document["continued_trajectory_ref"] = _name(number + 1)
        found[_name(number)] = document
    return found


def _contexts(
    messages: Sequence[Message], events: Sequence[ContextEvent]
) -> list[tuple[list[Message], list[Message], list[dict[str, Any]]]]:
    """Of each context: what it takes over, what is new in it (a summary first), the event that began it and those in it."""
    resets = [event for event in events if event.action != "omit"]
    ends = [*(event.stop for event in resets), len(messages)]
    found: list[tuple[list[Message], list[Message], list[dict[str, Any]]]] = [([], [*messages[: ends[0]]], [])]
    for number, (event, end) in enumerate(zip(resets, ends[1:]), start=1):
        gone = {index for reset in resets[:number] for index in range(reset.start, reset.stop)}
        copied = [messages[index] for index in range(event.stop) if index not in gone]
        notes = [Message(role="user", content=event.text)] if event.text else []
        found.append((copied, [*notes, *messages[event.stop : end]], []))
    number = 0
    for event in events:
        number += event.action != "omit"
        found[number][2].append(event.model_dump(mode="json", exclude_defaults=True))
    return found


def _turns(messages: Sequence[Message]) -> int:
    return sum(message.role == "assistant" for message in messages)


def _name(number: int) -> str:
    return f"trajectory.cont-{number}.json" if number else "trajectory.json"
