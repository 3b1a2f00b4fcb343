"""Sampled ids of one assistant turn back to a message, with tool arguments typed by the tool's JSON schema.

The inverse of `chat.template`, on ids: a tag counts only as its control token, so text that spells a tag stays text. A
<tool_call> ends reasoning that was not closed. A call that does not follow the grammar

    <tool_call> name (<arg_key> key </arg_key> <arg_value> value </arg_value>)* </tool_call>

is kept as plain content with the problem named, so that nothing the model wrote is lost or run by mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from arcforge.chat.schema import typed
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

CUT_OFF = "the turn was cut off before it ended"
NOT_CLOSED = "the reasoning was not closed"
TEXT_AFTER_CALL = "text after a tool call"
END_OF_TURN = "end of turn"
_ARGUMENT = ("<arg_key>", "", "</arg_key>", "<arg_value>", "", "</arg_value>")


@dataclass(frozen=True)
class Parsed:
    """`problem` is "" for a well-formed turn, else one line that says what is malformed first."""

    message: Message
    problem: str


def parse(ids: Sequence[int], tokenizer: Tokenizer, tools: Sequence[ToolSpec], thinking: Thinking) -> Parsed:
    """Read one turn. ids: everything sampled after the generation prompt, the stop id included; never raises on any ids.

    Reasoning and content come without surrounding white space, as the template writes them back. Calls of unknown tools
    and arguments of the wrong type are kept as they are and named in `problem`.
    """
    stopped = bool(ids) and ids[-1] in tokenizer.stop_ids
    turn = Turn(segments(ids[:-1] if stopped else ids, tokenizer), {tool.name: tool for tool in tools})
    reasoning = turn.reasoning() if thinking.enabled else None
    turn.read()
    problems = [*turn.problems, *([] if stopped else [CUT_OFF])]
    message = Message(
        role="assistant",
        content="".join(turn.content).strip(),
        reasoning=reasoning,
        tool_calls=tuple(turn.calls),
    )
    return Parsed(message, problems[0] if problems else "")


@dataclass(frozen=True)
class Segment:
    """A control token by name, or a run of text (name "")."""

    name: str
    text: str


def segments(ids: Sequence[int], tokenizer: Tokenizer) -> list[Segment]:
    """Ids cut at control tokens."""
    names = {index: name for name, index in tokenizer.control.items()}
    found, start = [], 0
    for position, index in enumerate([*ids, None]):
        if index is not None and index not in names:
            continue
        if position > start:
            found.append(Segment("", tokenizer.decode(ids[start:position])))
        if index is not None:
            found.append(Segment(names[index], names[index]))
        start = position + 1
    return found


@dataclass
class Turn:
    """Reads `segments` from `position` on, and collects content, calls and problems. `follows` stands behind them."""

    segments: list[Segment]
    tools: dict[str, ToolSpec]
    follows: str = END_OF_TURN
    content: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    position: int = 0

    def reasoning(self) -> str:
        """Everything up to </think>, or up to the first tool call where that comes first."""
        parts: list[str] = []
        while self.position < len(self.segments):
            segment = self.segments[self.position]
            if segment.name == "<tool_call>":
                return "".join(parts).strip()
            self.position += 1
            if segment.name == "</think>":
                return "".join(parts).strip()
            if segment.name:
                self.problems.append(f"{segment.name} in the reasoning")
            parts.append(segment.text)
        self.problems.append(NOT_CLOSED)
        return "".join(parts).strip()

    def read(self) -> None:
        """Content, then tool calls."""
        while self.position < len(self.segments):
            segment = self.segments[self.position]
            if segment.name == "<tool_call>":
                self._call()
                continue
            self.position += 1
            if segment.name:
                self.problems.append(f"{segment.name} in the content")
            elif self.calls and segment.text.strip():
                self.problems.append(TEXT_AFTER_CALL)
            self.content.append(segment.text)

    def _call(self) -> None:
        """One call at `position`. A malformed one goes to the content, up to its end or the next call."""
        start = self.position
        self.position += 1
        name = self._text().strip()
        pairs: list[tuple[str, str]] = []
        whole = True
        while whole and self._peek() == "<arg_key>":
            whole = self._argument(pairs)
        if name and whole and self._take("</tool_call>"):
            self.calls.append(self._typed(name, pairs))
            return
        self.problems.append(_what_is_wrong(name, self._peek(), len(pairs)))
        while self._peek() not in ("</tool_call>", "<tool_call>", END_OF_TURN):
            self.position += 1
        self._take("</tool_call>")
        self.content.extend(segment.text for segment in self.segments[start : self.position])

    def _argument(self, pairs: list[tuple[str, str]]) -> bool:
        """Add the key and raw value here to `pairs`; False, at the segment that is in the way, when they are not whole."""
        texts = []
        for name in _ARGUMENT:
            if not name:
                texts.append(self._text())
            elif not self._take(name):
                return False
        pairs.append((texts[0].strip(), texts[1]))
        return True

    def _typed(self, name: str, pairs: list[tuple[str, str]]) -> ToolCall:
        tool = self.tools.get(name)
        if tool is None:
            self.problems.append(f"unknown tool {name!r:.80}")
        schema = tool.parameters if tool is not None else {}
        arguments: dict[str, Any] = {}
        for key, text in pairs:
            if key in arguments:
                self.problems.append(f"{name}: argument {key!r:.80} is given twice")
            value, problem = typed(text, key, schema)
            arguments[key] = value
            if problem:
                self.problems.append(f"{name}: {problem}")
        return ToolCall(name=name, arguments=arguments)

    def _peek(self) -> str:
        """The control token ahead, white space before it skipped; "text", or what follows the segments."""
        ahead = self.position
        while ahead < len(self.segments) and not self.segments[ahead].name and not self.segments[ahead].text.strip():
            ahead += 1
        if ahead == len(self.segments):
            return self.follows
        return self.segments[ahead].name or "text"

    def _take(self, name: str) -> bool:
        """Step over a control token and white space before it."""
        if self._peek() != name:
            return False
        while self.segments[self.position].name != name:
            self.position += 1
        self.position += 1
        return True

    def _text(self) -> str:
        """The text here; "" in front of a control token."""
        if self.position < len(self.segments) and not self.segments[self.position].name:
            self.position += 1
            return self.segments[self.position - 1].text
        return ""


def _what_is_wrong(name: str, ahead: str, arguments: int) -> str:
    if not name:
        return f"a tool call without a name, {ahead} in its place"
    if ahead == END_OF_TURN:
        return f"the call of {name!r:.80} was not closed"
    return f"the call of {name!r:.80} is malformed: {ahead} after {arguments} whole arguments"
