"""The body of /v1/chat/completions: OpenAI's fields, plus `thinking` of the GLM API, as the project's own values.

    thinking: {"type": "enabled" | "disabled", "clear_thinking": true | false}

clear_thinking false is preserved thinking: every reasoning block given back stays in the context. It defaults to true,
interleaved thinking, as the model's own template does (GLM-5 report, section 3.1). Reasoning of earlier turns may come
back as `reasoning` or `reasoning_content`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Sampling, Thinking, ToolCall, ToolSpec
from arcforge.serve.token_schema import (
    MOST_CHOICES,
    MOST_TOKENS,
    MOST_TOP_LOGPROBS,
    Body,
    Seed,
    biases,
    fresh,
    known_ids,
    neutral,
)
from arcforge.serve.turns import Turn

ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
DEFAULT_TOKENS = 1024
MOST_STOPS = 16


class TextPart(Body):
    type: Literal["text"]
    text: str


class FunctionCall(Body):
    """arguments: a JSON string, as OpenAI's API has it, or an object."""

    name: str
    arguments: str | dict[str, Any] = ""


class CallField(Body):
    id: str | None = None
    function: FunctionCall


class ChatMessage(Body):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallField] | None = None
    tool_call_id: str | None = None


class FunctionSpec(Body):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolField(Body):
    type: Literal["function"] = "function"
    function: FunctionSpec


class NamedFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: NamedFunction


class ThinkingField(Body):
    type: Literal["enabled", "disabled"] = "enabled"
    clear_thinking: bool | None = None


class TemplateOptions(Body):
    enable_thinking: bool | None = None
    clear_thinking: bool | None = None


class StreamOptions(Body):
    include_usage: bool = False


class SampledBody(Body):
    """What chat and plain completions share."""

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    seed: Seed | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    max_tokens: int | None = Field(None, ge=0, le=MOST_TOKENS)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    cache_salt: str = ""
    presence_penalty: Annotated[float | None, neutral(0, None)] = None
    frequency_penalty: Annotated[float | None, neutral(0, None)] = None

    @property
    def choices(self) -> int:
        return self.n or 1

    def stops(self) -> tuple[str, ...]:
        """UserError for an empty stop string or too many of them."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > MOST_STOPS or "" in stops:
            raise UserError(f"stop: at most {MOST_STOPS} strings, none of them empty")
        return stops

    def sampling_of(self, tokenizer: Tokenizer, max_tokens: int, top_logprobs: int = 0) -> Sampling:
        extra = known_ids(self.stop_token_ids, "stop_token_ids", tokenizer.vocab_size) if self.stop_token_ids else []
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=fresh(self.seed),
            stop_ids=(*tokenizer.stop_ids, *extra),
            logit_bias=biases(self.logit_bias),
            top_logprobs=top_logprobs,
            cache_salt=self.cache_salt,
        )


class ChatBody(SampledBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ToolField] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    thinking: ThinkingField | None = None
    chat_template_kwargs: TemplateOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    response_format: Annotated[dict[str, Any] | None, neutral({"type": "text"}, None)] = None

    def turn(self, tokenizer: Tokenizer) -> Turn:
        """UserError for what no field alone can tell: a call's arguments, a tool that is not declared."""
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS
        tools, forced = self._tools()
        return Turn(
            messages=tuple(_message(message, f"messages[{i}]") for i, message in enumerate(self.messages)),
            tools=tools,
            thinking=self._thinking(),
            sampling=self.sampling_of(tokenizer, limit, (self.top_logprobs or 0) if self.logprobs else 0),
            stop=self.stops(),
            forced=forced,
        )

    @property
    def turn_thinks(self) -> bool:
        return self._thinking().enabled

    def _thinking(self) -> Thinking:
        template = self.chat_template_kwargs or TemplateOptions()
        enabled, clear = template.enable_thinking is not False, template.clear_thinking
        if self.thinking is not None:
            enabled = self.thinking.type == "enabled"
            clear = clear if self.thinking.clear_thinking is None else self.thinking.clear_thinking
        return Thinking(enabled=enabled, preserved=clear is False)

    def _tools(self) -> tuple[tuple[ToolSpec, ...], str | None]:
        """Tools, and what `Turn.forced` says."""
        if self.tool_choice == "none":
            return (), None
        tools = tuple(
            ToolSpec(name=f.name, description=f.description or "", parameters=f.parameters or {})
            for f in (tool.function for tool in self.tools or ())
        )
        if isinstance(self.tool_choice, NamedTool):
            return tools, forced_tool(self.tool_choice.function.name, tools)
        return tools, forced_tool("", tools) if self.tool_choice == "required" else None


def forced_tool(name: str, tools: tuple[ToolSpec, ...]) -> str:
    """`Turn.forced` for a call of this tool, of any where the name is empty. UserError when there is none to call."""
    if not tools or (name and name not in {tool.name for tool in tools}):
        raise UserError(
            f"tool_choice: {name!r:.80} is not among the tools" if name else "tool_choice: there are no tools"
        )
    return name


def _message(fields: ChatMessage, where: str) -> Message:
    reasoning = fields.reasoning if fields.reasoning is not None else fields.reasoning_content
    calls = fields.tool_calls or []
    if fields.role != "assistant" and (calls or reasoning is not None):
        raise UserError(f"{where}: only assistant messages carry reasoning or tool_calls")
    content = fields.content or ""
    return Message(
        role=ROLES[fields.role],
        content=content if isinstance(content, str) else "".join(part.text for part in content),
        reasoning=reasoning,
        tool_calls=tuple(_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)),
        tool_call_id=fields.tool_call_id or "",
    )


def _tool_call(call: CallField, where: str) -> ToolCall:
    arguments = call.function.arguments or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise UserError(f"{where}.function.arguments: not JSON") from None
    if not isinstance(arguments, dict):
        raise UserError(f"{where}.function.arguments: a JSON object is needed")
    return ToolCall(name=call.function.name, arguments=arguments, id=call.id or "")
