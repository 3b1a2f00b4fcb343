"""`chat.parse` while the turn is being sampled: new text and whole tool calls, as soon as they are certain.

Whatever the pieces the ids come in, the deltas joined are the message that `parse` reads from all of them at once. Text is
certain when no later id can change it: half a character waits for its other bytes, white space for text behind it, a
tool call for its end. A call that turns out malformed is content. The work is linear in the number of ids.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from arcforge.chat.parse import CUT_OFF, END_OF_TURN, NOT_CLOSED, TEXT_AFTER_CALL, Parsed, Turn, segments
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec


@dataclass(frozen=True)
class ReasoningDelta:
    """Text that the reasoning grew by."""

    text: str


@dataclass(frozen=True)
class ContentDelta:
    """Text that the content grew by."""

    text: str


@dataclass(frozen=True)
class CallReady:
    """A whole tool call, arguments typed; `index` counts the calls of the turn from 0. Its tool may be unknown."""

    index: int
    call: ToolCall


Event = ReasoningDelta | ContentDelta | CallReady


class TurnReader:
    """Reads one turn. Feed it everything sampled after the generation prompt, the stop id included; then finish it once."""

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[ToolSpec], thinking: Thinking) -> None:
        self._tokenizer, self._thinking = tokenizer, thinking
        self._tools = {tool.name: tool for tool in tools}
        self._names = {index: name for name, index in tokenizer.control.items()}
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._part: Literal["reasoning", "content", "call"] = "reasoning" if thinking.enabled else "content"
        self._stop_id: list[int] = []  # it ends the turn only if nothing follows
        self._call_ids: list[int] = []
        self._reasoning, self._content = _Stripped(), _Stripped()
        self._calls: list[ToolCall] = []
        self._problem = ""
        self._events: list[Event] = []

    def feed(self, ids: Sequence[int]) -> list[Event]:
        """What became certain with these ids, in order."""
        ids = [*self._stop_id, *ids]
        self._stop_id = [ids.pop()] if ids and ids[-1] in self._tokenizer.stop_ids else []
        start = 0
        for position, index in enumerate(ids):
            if index in self._names:
                self._text(ids[start:position])
                self._control(index)
                start = position + 1
        self._text(ids[start:])
        return self._take_events()

    def finish(self) -> tuple[list[Event], Parsed]:
        """The turn is over: what was held back, and the whole turn as `parse` reads it."""
        if self._part == "call":
            self._end_call(END_OF_TURN)
        self._end_text()
        if self._part == "reasoning":
            self._found(NOT_CLOSED)
        if not self._stop_id:
            self._found(CUT_OFF)
        message = Message(
            role="assistant",
            content=self._content.whole(),
            reasoning=self._reasoning.whole() if self._thinking.enabled else None,
            tool_calls=tuple(self._calls),
        )
        return self._take_events(), Parsed(message, self._problem)

    def _text(self, ids: Sequence[int]) -> None:
        """Ids without control tokens among them."""
        if self._part == "call":
            self._call_ids.extend(ids)
        elif ids:
            self._plain(self._characters.decode(self._tokenizer.decode_bytes(ids)))

    def _end_text(self) -> None:
        """A control token or the end cuts a character off."""
        self._plain(self._characters.decode(b"", final=True))

    def _plain(self, text: str) -> None:
        if self._part == "content" and self._calls and text.strip():
            self._found(TEXT_AFTER_CALL)
        self._say(text)

    def _control(self, index: int) -> None:
        name = self._names[index]
        if self._part == "call" and name not in ("<tool_call>", "</tool_call>"):
            self._call_ids.append(index)
        elif self._part == "call" and name == "</tool_call>":
            self._call_ids.append(index)
            self._end_call(END_OF_TURN)
        elif name == "<tool_call>":
            self._end_call(name) if self._part == "call" else self._end_text()
            self._part, self._call_ids = "call", [index]
        else:
            self._tag(name)

    def _tag(self, name: str) -> None:
        """A control token outside of calls: the end of the reasoning, or out of place."""
        self._end_text()
        if name == "</think>" and self._part == "reasoning":
            self._part = "content"
        else:
            self._found(f"{name} in the {self._part}")
            self._say(name)

    def _end_call(self, follows: str) -> None:
        """Read the call held back. Its end is certain: no call holds </tool_call> or another <tool_call>."""
        turn = Turn(segments(self._call_ids, self._tokenizer), self._tools, follows)
        turn.read()
        self._part = "content"
        self._found(*turn.problems)
        self._say("".join(turn.content))
        for call in turn.calls:
            self._events.append(CallReady(len(self._calls), call))
            self._calls.append(call)

    def _say(self, text: str) -> None:
        if self._part == "reasoning" and (shown := self._reasoning.add(text)):
            self._events.append(ReasoningDelta(shown))
        elif self._part == "content" and (shown := self._content.add(text)):
            self._events.append(ContentDelta(shown))

    def _found(self, *problems: str) -> None:
        for problem in problems:
            self._problem = self._problem or problem

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


@dataclass
class _Stripped:
    """Grows a text and tells it without the white space around: none before the first mark, none that may be the last."""

    _told: list[str] = field(default_factory=list)
    _space: list[str] = field(default_factory=list)

    def add(self, text: str) -> str:
        """What can be told now."""
        text = text if self._told else text.lstrip()
        marks = text.rstrip()
        if not marks:
            self._space.append(text)
            return ""
        told = "".join(self._space) + marks
        self._space = [text[len(marks) :]]
        self._told.append(told)
        return told

    def whole(self) -> str:
        """All that was told."""
        return "".join(self._told)
