"""The GLM-5 chat template: messages to token ids, loss mask and provenance (GLM-5 report, section 3.1).

    [gMASK]<sop> <|system|># Tools<tools>{json}\\n{json}</tools>        only with tools; before any system message
    <|system|>text   <|user|>text
    <|assistant|><think>reasoning</think>content<tool_call>name<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>
    <|observation|><tool_response>text</tool_response><tool_response>text</tool_response>

There are no newlines and no end-of-turn token: a turn ends with the next role token. Only this module places control
tokens, by id; text that spells one stays text. String arguments are written as they are, all other values as JSON.

Reasoning is kept after the last user message, or everywhere with `Thinking.preserved`; a dropped or absent block is a lone
</think>. A block that was written but is empty ("" instead of None) is kept as <think></think>, as it was sampled.

Loss: what the model samples is trained, which is the reasoning with its </think>, content, tool calls and the stop token
that ends the turn. <|assistant|>, <think>, a lone </think> and all other messages are not, nor is anything of a message
with trained=False.

The tools block above and compact JSON are those of our own template. A checkpoint that brings another template keeps its
own, see `chat.frame`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from arcforge.chat.frame import argument_text, tool_json
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking, ToolSpec

_ROLE_TOKENS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|observation|>"}


@dataclass(frozen=True)
class Rendered:
    """Three lists of equal length: token ids; whether the loss may touch a token; the message it stands in.

    message_index is -1 for [gMASK]<sop>, the tools and the generation prompt. A role token that ends an assistant turn
    stands in the message that it opens; the one after a final assistant message stands in that message.
    """

    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    message_index: list[int] = field(default_factory=list)


def render(
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    thinking: Thinking,
    tokenizer: Tokenizer,
    generation_prompt: bool = False,
) -> Rendered:
    """The whole conversation. With `generation_prompt` it ends where the model continues.

    Without, a final assistant message is closed by the stop token the model ends it with: <|observation|> after tool
    calls, <|user|> otherwise.
    """
    writer = _Writer(tokenizer)
    writer.control("[gMASK]")
    writer.control("<sop>")
    writer.extend(tools_block(tools, tokenizer))
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    before = None
    for index, message in enumerate(messages):
        writer.index = index
        writer.role(message, before)
        writer.body(message, keeps_reasoning=thinking.preserved or index > last_user)
        before = message
    if generation_prompt:
        writer.index = -1
        writer.extend(generation_ids(thinking, tokenizer))
    elif before is not None and before.role == "assistant":
        writer.control("<|observation|>" if before.tool_calls else "<|user|>", before.trained)
    return writer.rendered


def bridge(
    sampled_last_id: int,
    new_messages: Sequence[Message],
    thinking: Thinking,
    tokenizer: Tokenizer,
    generation_prompt: bool = True,
) -> list[int]:
    """Ids to append after a sampled turn, whose last id is `sampled_last_id`, for the messages that follow it.

    Append-only: nothing before is rendered again. When the model already sampled the role token that the first new
    message starts with, it is not written twice. ValueError for an assistant message: only the model writes those here.
    The caller renders anew when a user message strips earlier reasoning (interleaved thinking).
    """
    writer = _Writer(tokenizer)
    before = None
    for message in new_messages:
        if message.role == "assistant":
            raise ValueError("bridge appends what follows a sampled turn; an assistant message cannot be among it")
        if before is not None or sampled_last_id != tokenizer.id(_ROLE_TOKENS[message.role]):
            writer.role(message, before)
        writer.body(message, keeps_reasoning=True)
        before = message
    if generation_prompt:
        writer.extend(generation_ids(thinking, tokenizer))
    return writer.rendered.ids


def tools_block(tools: Sequence[ToolSpec], tokenizer: Tokenizer) -> list[int]:
    """The block that declares the tools, in the frame of the tokenizer's template; empty without tools."""
    if not tools:
        return []
    frame = tokenizer.template.frame
    lines = frame.between.join(tool_json(tool, frame) for tool in tools)
    return tokenizer.encode_between(frame.before, lines, frame.after)


def generation_ids(thinking: Thinking, tokenizer: Tokenizer) -> list[int]:
    """What the model continues: <|assistant|><think>, or <|assistant|></think> when this turn is without thinking."""
    return [tokenizer.id("<|assistant|>"), tokenizer.id("<think>" if thinking.enabled else "</think>")]


class _Writer:
    """Grows a Rendered; every token written belongs to message `index`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.rendered = Rendered()
        self.index = -1

    def extend(self, ids: Iterable[int], trained: bool = False) -> None:
        rendered = self.rendered
        before = len(rendered.ids)
        rendered.ids.extend(ids)
        added = len(rendered.ids) - before
        rendered.trained.extend([trained] * added)
        rendered.message_index.extend([self.index] * added)

    def control(self, name: str, trained: bool = False) -> None:
        self.extend((self._tokenizer.id(name),), trained)

    def text(self, text: str, trained: bool = False) -> None:
        if text:
            self.extend(self._tokenizer.encoded(text), trained)

    def role(self, message: Message, before: Message | None) -> None:
        """The token that opens a message. It ends the assistant turn before, if the model stops at it."""
        if message.role == "tool" and before is not None and before.role == "tool":
            return
        name = _ROLE_TOKENS[message.role]
        ends_turn = before is not None and before.role == "assistant" and before.trained
        self.control(name, ends_turn and self._tokenizer.id(name) in self._tokenizer.stop_ids)

    def body(self, message: Message, keeps_reasoning: bool) -> None:
        if message.role == "assistant":
            self._assistant(message, keeps_reasoning)
        elif message.role == "tool":
            self.control("<tool_response>")
            self.text(message.content)
            self.control("</tool_response>")
        else:
            self.text(message.content)

    def _assistant(self, message: Message, keeps_reasoning: bool) -> None:
        trained = message.trained
        if keeps_reasoning and message.reasoning is not None:
            self.control("<think>")
            self.text(message.reasoning.strip(), trained)
            self.control("</think>", trained)
        else:
            self.control("</think>")
        self.text(message.content.strip(), trained)
        for call in message.tool_calls:
            self.control("<tool_call>", trained)
            self.text(call.name, trained)
            for key, value in call.arguments.items():
                self._argument(key, argument_text(value, self._tokenizer.template.frame), trained)
            self.control("</tool_call>", trained)

    def _argument(self, key: str, value: str, trained: bool) -> None:
        self.control("<arg_key>", trained)
        self.text(key, trained)
        self.control("</arg_key>", trained)
        self.control("<arg_value>", trained)
        self.text(value, trained)
        self.control("</arg_value>", trained)
