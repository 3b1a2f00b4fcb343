"""The body of /v1/messages: Anthropic's fields as the project's own values.

Thinking is off unless the request turns it on. Thinking blocks given back count as reasoning of their turn; those of earlier
turns leave the context, but for {"type": "enabled", "clear_thinking": false} (preserved thinking, GLM-5 report, section 3.1).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Sampling, Thinking, ToolCall, ToolSpec
from arcforge.serve.chat_schema import MOST_STOPS, forced_tool
from arcforge.serve.token_schema import MOST_TOKENS, Body, Seed, fresh
from arcforge.serve.turns import Turn


class TextBlock(Body):
    type: Literal["text"]
    text: str


class ThinkingBlock(Body):
    type: Literal["thinking"]
    thinking: str


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any] = {}


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class MessageField(Body):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolField(Body):
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any] = {}


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class ThinkingField(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    clear_thinking: bool | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: list[MessageField] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[ToolField] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingField | None = None

    def conversation(self) -> tuple[tuple[Message, ...], tuple[ToolSpec, ...], Thinking]:
        messages = [Message(role="system", content=_text(self.system))] if self.system else []
        for i, message in enumerate(self.messages):
            messages += _messages(message, f"messages[{i}]")
        tools = tuple(
            ToolSpec(name=tool.name, description=tool.description or "", parameters=tool.input_schema)
            for tool in self.tools or ()
        )
        thinking = self.thinking or ThinkingField(type="disabled")
        clear = thinking.clear_thinking is not False
        none = self.tool_choice is not None and self.tool_choice.type == "none"
        return (
            tuple(messages),
            () if none else tools,
            Thinking(enabled=thinking.type != "disabled", preserved=not clear),
        )


class MessagesBody(CountBody):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(None, max_length=MOST_STOPS)
    stream: bool | None = None
    seed: Seed | None = None

    def turn(self, tokenizer: Tokenizer) -> Turn:
        messages, tools, thinking = self.conversation()
        choice, forced = self.tool_choice, None
        if choice is not None and choice.type in ("any", "tool"):
            if choice.type == "tool" and not choice.name:
                raise UserError("tool_choice.name: the tool's name is needed")
            forced = forced_tool((choice.name or "") if choice.type == "tool" else "", tools)
        return Turn(
            messages=messages,
            tools=tools,
            thinking=thinking,
            sampling=Sampling(
                max_tokens=self.max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=self.top_k or 0,
                seed=fresh(self.seed),
                stop_ids=tokenizer.stop_ids,
            ),
            stop=tuple(self.stop_sequences or ()),
            forced=forced,
        )


def _messages(field: MessageField, where: str) -> list[Message]:
    """One message of theirs is several of ours where it carries tool results."""
    blocks = [TextBlock(type="text", text=field.content)] if isinstance(field.content, str) else field.content
    text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
    if field.role == "assistant":
        thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
        if any(isinstance(block, ToolResultBlock) for block in blocks):
            raise UserError(f"{where}: an assistant message carries no tool_result")
        calls = (
            ToolCall(name=block.name, arguments=block.input, id=block.id)
            for block in blocks
            if isinstance(block, ToolUseBlock)
        )
        reasoning = "\n".join(thoughts) if thoughts else None
        return [Message(role="assistant", content=text, reasoning=reasoning, tool_calls=tuple(calls))]
    if any(isinstance(block, ToolUseBlock | ThinkingBlock) for block in blocks):
        raise UserError(f"{where}: only an assistant message carries tool_use or thinking")
    if field.role == "system":
        return [Message(role="system", content=text)]
    results = [
        Message(role="tool", content=_text(block.content), tool_call_id=block.tool_use_id)
        for block in blocks
        if isinstance(block, ToolResultBlock)
    ]
    return results + ([Message(role="user", content=text)] if text or not results else [])


def _text(content: str | list[TextBlock] | None) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content or ())


def call_input(call: ToolCall) -> str:
    """A call's arguments as the JSON text that is streamed."""
    return json.dumps(call.arguments, ensure_ascii=False)
