"""A Completer over any OpenAI-style chat endpoint: our server, vLLM, SGLang, the GLM API, OpenAI.

They agree on messages and tools and differ in how thinking is asked for and given back; `dialect` names the difference:

    vllm     chat_template_kwargs and stop_token_ids; reasoning goes back as `reasoning` and `reasoning_content`
             (vLLM, SGLang and our server read one or the other)
    glm      `thinking: {type, clear_thinking}`; reasoning goes back unmodified as `reasoning_content`
    openai   neither; the limit is called max_completion_tokens
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from arcforge.clients.http import JsonClient, malformed, session_header
from arcforge.clients.ids import with_call_ids
from arcforge.core.errors import EngineError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Completion, CompletionRequest

Dialect = Literal["vllm", "glm", "openai"]


class ChatCompleter:
    """`base_url` ends before /chat/completions (usually in /v1). timeout: seconds for one answer.

    A turn whose tool arguments are no JSON object, or that the server itself calls malformed, has finish_reason
    "malformed" and says why. EngineError for a failed or nonsensical answer, RolloutTimeout for none.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str = "", timeout: float = 600.0, dialect: Dialect = "vllm"
    ) -> None:
        self._http = JsonClient(base_url, timeout, _bearer(api_key), public=True)
        self.model, self._dialect = model, dialect

    async def complete(self, request: CompletionRequest) -> Completion:
        answer = await self._http.post("/chat/completions", self._body(request), session_header(request.session))
        try:
            return _completion(answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise malformed(f"{self._http.base_url}/chat/completions", error) from None

    async def close(self) -> None:
        await self._http.close()

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        sampling = request.sampling
        limit = "max_completion_tokens" if self._dialect == "openai" else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [self._message(message) for message in with_call_ids(request.messages)],
            limit: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if self._dialect == "vllm" and sampling.stop_ids:
            body["stop_token_ids"] = list(sampling.stop_ids)
        return {**body, **self._thinking(request.thinking)}

    def _thinking(self, thinking: Thinking) -> dict[str, Any]:
        """The thinking mode (GLM-5 report, section 3.1) as the endpoint takes it."""
        clear = not thinking.preserved
        if self._dialect == "vllm":
            return {"chat_template_kwargs": {"enable_thinking": thinking.enabled, "clear_thinking": clear}}
        if self._dialect == "glm":
            return {"thinking": {"type": "enabled" if thinking.enabled else "disabled", "clear_thinking": clear}}
        return {}

    def _message(self, message: Message) -> dict[str, Any]:
        fields: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "tool":
            fields["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            fields["tool_calls"] = [_call(call) for call in message.tool_calls]
        if message.reasoning is not None and self._dialect != "openai":
            fields["reasoning_content"] = message.reasoning
            if self._dialect == "vllm":
                fields["reasoning"] = message.reasoning
        return fields


def _tool(tool: ToolSpec) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _completion(answer: dict[str, Any]) -> Completion:
    choice = answer["choices"][0]
    fields, usage = choice["message"], answer.get("usage") or {}
    if choice["finish_reason"] == "content_filter" or fields.get("refusal"):
        raise EngineError(f"the endpoint refused to answer: {str(fields.get('refusal') or 'content filter')[:200]}")
    calls, problem = [], str(choice.get("problem") or "")
    for call in fields.get("tool_calls") or []:
        function = call["function"]
        arguments, wrong = _arguments(function.get("arguments"))
        calls.append(ToolCall(name=function["name"], arguments=arguments, id=call.get("id") or ""))
        problem = problem or (f"{function['name']}: {wrong}" if wrong else "")
    reasoning = fields.get("reasoning")
    message = Message(
        role="assistant",
        content=fields.get("content") or "",
        reasoning=fields.get("reasoning_content") if reasoning is None else reasoning,
        tool_calls=tuple(calls),
    )
    return Completion(
        message=message,
        finish_reason=_finish_reason(choice["finish_reason"], problem, message),
        problem=problem,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
    )


def _arguments(text: Any) -> tuple[dict[str, Any], str]:
    """(arguments, problem). Some endpoints give an object where OpenAI gives its JSON, or nothing for no arguments."""
    if isinstance(text, dict):
        return text, ""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}, f"the arguments are not JSON: {text!r:.80}"
    return (value, "") if isinstance(value, dict) else ({}, f"the arguments are no JSON object: {text!r:.80}")


def _finish_reason(given: str, problem: str, message: Message) -> str:
    if given == "length":
        return "length"
    if problem:
        return "malformed"
    return "tool_calls" if message.tool_calls else "stop"


async def endpoint(base_url: str, model: str = "") -> ChatCompleter:
    """A completer of the model at a URL, the first that its /models tells if not named; the key is OPENAI_API_KEY, if that is set.

    EngineError when it tells none.
    """
    base_url, key = base_url.rstrip("/"), os.environ.get("OPENAI_API_KEY", "")
    return ChatCompleter(base_url, model or await _first_model(base_url, key), key)


async def _first_model(base_url: str, api_key: str) -> str:
    async with JsonClient(base_url, 30.0, _bearer(api_key), public=True) as http:
        answer = await http.get("/models")
    try:
        return str(answer["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise malformed(f"{base_url}/models", error) from None


def _bearer(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
