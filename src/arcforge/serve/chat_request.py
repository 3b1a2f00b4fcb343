"""Reading a /v1/chat/completions body: OpenAI's fields, plus `thinking` of the GLM API, into the project's own values.

    thinking: {"type": "enabled" | "disabled", "clear_thinking": true | false}

clear_thinking false is preserved thinking: every reasoning block given back stays in the context. It defaults to true,
interleaved thinking, as the model's own template does (GLM-5 report, section 3.1). Reasoning of earlier turns may come
back as `reasoning` or `reasoning_content`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Sampling, Thinking, ToolCall, ToolSpec, Value
from arcforge.serve import wire

# Options this server does not implement, with the only value that would change nothing.
NEUTRAL = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "stop": [],
    "response_format": {"type": "text"},
    "top_k": -1,
    "top_logprobs": 0,
}
ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class ChatRequest(Value):
    """One request, validated. `logprobs`, `token_ids` and `usage` say what the answer carries besides the message."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    thinking: Thinking
    sampling: Sampling
    stream: bool = False
    logprobs: bool = False
    token_ids: bool = False
    usage: bool = False


def read_chat(body: Mapping[str, Any], model_name: str, stop_ids: Sequence[int], vocab_size: int) -> ChatRequest:
    """Validate a body. UserError names the field."""
    if body.get("model") not in (None, model_name):
        raise UserError(f"model: {body['model']!r:.80} is not served here; this is {model_name!r}")
    wire.refuse(body, NEUTRAL)
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    extra = body.get("stop_token_ids")
    stops = tuple(stop_ids) + (tuple(wire.token_ids(extra, "stop_token_ids", vocab_size)) if extra else ())
    stream_options = _object(body, "stream_options")
    return ChatRequest(
        messages=_messages(body.get("messages")),
        tools=_tools(body),
        thinking=_thinking(body),
        sampling=Sampling(
            max_tokens=wire.integer(body, limit, 1024, 1, wire.MAX_NEW_TOKENS),
            temperature=wire.number(body, "temperature", 1.0, 0.0, 100.0),
            top_p=wire.number(body, "top_p", 1.0, 1e-6, 1.0),
            seed=wire.seed(body),
            stop_ids=stops,
        ),
        stream=_flag(body, "stream"),
        logprobs=_flag(body, "logprobs"),
        token_ids=_flag(body, "return_token_ids"),
        usage=_flag(stream_options, "include_usage"),
    )


def _thinking(body: Mapping[str, Any]) -> Thinking:
    asked, template = _object(body, "thinking"), _object(body, "chat_template_kwargs")
    kind = wire.text(asked, "type", "enabled" if _flag(template, "enable_thinking", True) else "disabled")
    if kind not in ("enabled", "disabled"):
        raise UserError(f"thinking.type: enabled or disabled, not {kind!r:.40}")
    clear = _flag(asked, "clear_thinking", _flag(template, "clear_thinking", True))
    return Thinking(enabled=kind == "enabled", preserved=not clear)


def _tools(body: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    choice = body.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise UserError(f"tool_choice: auto or none, not {choice!r:.60}")
    specs = _list(body, "tools")
    if choice == "none":
        return ()
    tools = []
    for i, spec in enumerate(specs):
        function = (
            spec.get("function") if isinstance(spec, dict) and spec.get("type", "function") == "function" else None
        )
        if not isinstance(function, dict):
            raise UserError(f'tools[{i}]: {{"type": "function", "function": {{...}}}} is needed')
        name, parameters = wire.text(function, "name"), function.get("parameters") or {}
        if not name or not isinstance(parameters, dict):
            raise UserError(f"tools[{i}].function: a name and parameters (a JSON schema object) are needed")
        tools.append(ToolSpec(name=name, description=wire.text(function, "description"), parameters=parameters))
    return tuple(tools)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UserError("messages: a non-empty list is needed")
    return tuple(_message(fields, f"messages[{i}]") for i, fields in enumerate(value))


def _message(fields: Any, where: str) -> Message:
    if not isinstance(fields, dict) or fields.get("role") not in ROLES:
        raise UserError(f"{where}.role: one of {', '.join(ROLES)} is needed")
    reasoning = fields.get("reasoning")
    reasoning = fields.get("reasoning_content") if reasoning is None else reasoning
    calls = fields.get("tool_calls") or []
    if not isinstance(calls, list):
        raise UserError(f"{where}.tool_calls: a list is needed")
    if fields["role"] != "assistant" and (calls or reasoning is not None):
        raise UserError(f"{where}: only assistant messages carry reasoning or tool_calls")
    try:
        return Message.model_validate(
            {
                "role": ROLES[fields["role"]],
                "content": _content(fields.get("content"), where),
                "reasoning": reasoning,
                "tool_calls": tuple(_tool_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)),
                "tool_call_id": fields.get("tool_call_id") or "",
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _content(value: Any, where: str) -> str:
    """A string, null (with tool calls), or a list of text parts."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise UserError(f"{where}.content: a string or a list of text parts is needed")
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UserError(f"{where}.content: this model reads text parts only")
        texts.append(part["text"])
    return "".join(texts)


def _tool_call(call: Any, where: str) -> ToolCall:
    """Arguments come as a JSON string (OpenAI) or as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}.function.name is needed")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            raise UserError(f"{where}.function.arguments: not JSON") from None
    if not isinstance(arguments, dict):
        raise UserError(f"{where}.function.arguments: a JSON object is needed")
    return ToolCall(name=function["name"], arguments=arguments, id=wire.text(call, "id"))


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"{name}: an object is needed")
    return value or {}


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise UserError(f"{name}: a list is needed")
    return value or []


def _flag(body: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UserError(f"{name}: true or false is needed")
    return value
