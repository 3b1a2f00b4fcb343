"""What surrounds a summary of a context: the request for it and the message that carries it on. The words are ours, and fixed.

The context is told as text of one message instead of being continued, so that any endpoint and any chat template can
summarise it, tools declared or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from arcforge.agents.answers import capped
from arcforge.core.messages import Message, Sampling, Thinking
from arcforge.core.protocols import Completion, CompletionRequest

INSTRUCTION = (
    "You keep the notes of an agent whose context is full. Its conversation so far follows. Write down what it needs to go on "
    "without it: what was asked, what was done and with which result, facts found (with names, numbers and sources, exactly), what "
    "was tried and failed, and the next step. No new conclusions, nothing made up."
)
BEFORE = "The context was full and your work so far was left out of it. These are your notes on it:"
AFTER = "Go on from here; do not repeat what is done."
NO_NOTES = "(no notes were taken)"
CUT = "(the notes end here, at their token limit)"
RESULT_CHARS = 8000


def summary_request(messages: Sequence[Message], max_tokens: int) -> CompletionRequest:
    """Ask for a summary of the context `messages`; greedy and without thinking, in a session of its own."""
    return CompletionRequest(
        messages=(Message(role="system", content=INSTRUCTION), Message(role="user", content=transcript(messages))),
        thinking=Thinking(enabled=False),
        sampling=Sampling(temperature=0.0, max_tokens=max_tokens),
    )


def summary_text(completion: Completion) -> str:
    """The user message that stands for what was left out."""
    notes = completion.message.content.strip() or NO_NOTES
    cut = [CUT] if completion.finish_reason == "length" else []
    return "\n\n".join([BEFORE, notes, *cut, AFTER])


def transcript(messages: Sequence[Message]) -> str:
    """The messages as text, each under its role; results longer than RESULT_CHARS lose their middle."""
    return "\n\n".join(_told(message) for message in messages)


def _told(message: Message) -> str:
    parts = [f"## {message.role}"]
    if message.reasoning:
        parts.append(f"(thinking) {message.reasoning}")
    if message.content:
        parts.append(capped(message.content, RESULT_CHARS) if message.role == "tool" else message.content)
    parts += [
        f"(call) {call.name} {json.dumps(call.arguments, ensure_ascii=False, sort_keys=True)}"
        for call in message.tool_calls
    ]
    return "\n".join(parts)
