"""A Completer over any Anthropic-style Messages endpoint (Anthropic, the GLM API, vLLM).

The API differs from a list of messages in three ways: the system text stands apart, tool results are blocks of a user
turn, and turns of one role in a row are one turn. Thinking blocks are signed and must come back unmodified, so this client
remembers them by their text; reasoning that came from elsewhere is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arcforge.clients.http import JsonClient, malformed
from arcforge.clients.ids import with_call_ids
from arcforge.core.errors import EngineError
from arcforge.core.messages import Message, ToolCall, ToolSpec
from arcforge.core.protocols import Completion, CompletionRequest

VERSION = "2023-06-01"
_REMEMBERED_TURNS = 10_000
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
Block = dict[str, Any]


class MessagesCompleter:
    """`base_url` ends before /v1/messages. timeout: seconds for one answer.

    thinking_budget: tokens of thinking beside the answer's own `max_tokens`, asked for when the request enables thinking;
    the API then fixes the temperature. 0 never asks. The API takes no seed, so answers are not repeatable. EngineError for
    a refused, failed or nonsensical answer, RolloutTimeout for none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str = "",
        timeout: float = 600.0,
        thinking_budget: int = 0,
    ) -> None:
        headers = {"anthropic-version": VERSION, **({"x-api-key": api_key} if api_key else {})}
        self._http = JsonClient(base_url, timeout, headers, public=True)
        self._model, self._budget = model, thinking_budget
        self._thoughts: dict[str, list[Block]] = {}

    async def complete(self, request: CompletionRequest) -> Completion:
        answer = await self._http.post("/v1/messages", self._body(request))
        try:
            return self._completion(answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise malformed(f"{self._http.base_url}/v1/messages", error) from None

    async def close(self) -> None:
        await self._http.close()

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": self._turns(request.messages),
            "max_tokens": sampling.max_tokens,
        }
        if self._budget and request.thinking.enabled:
            body["max_tokens"] += self._budget
            body["thinking"] = {"type": "enabled", "budget_tokens": self._budget}
        else:
            body["temperature"] = min(sampling.temperature, 1.0)
            if sampling.top_p < 1:
                body["top_p"] = sampling.top_p
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        if system:
            body["system"] = system
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        return body

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """User and assistant turns in alternation, each a list of blocks."""
        turns: list[dict[str, Any]] = []
        for message in with_call_ids(messages):
            blocks = self._blocks(message)
            role = "assistant" if message.role == "assistant" else "user"
            if not blocks:
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"].extend(blocks)
            else:
                turns.append({"role": role, "content": blocks})
        return turns

    def _blocks(self, message: Message) -> list[Block]:
        """Blocks of one message; none for system text, which stands apart. The API refuses empty text."""
        if message.role == "system":
            return []
        if message.role == "tool":
            return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}]
        blocks = list(self._thoughts.get(message.reasoning, ())) if message.reasoning is not None else []
        if message.content.strip():
            blocks.append({"type": "text", "text": message.content})
        calls = ({"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in message.tool_calls)
        return [*blocks, *calls]

    def _completion(self, answer: dict[str, Any]) -> Completion:
        if answer["stop_reason"] not in _FINISH:
            raise EngineError(f"the endpoint ended the answer with {answer['stop_reason']!r:.80}")
        thoughts, texts, calls = [], [], []
        for block in answer["content"]:
            if block["type"] in ("thinking", "redacted_thinking"):
                thoughts.append(block)
            elif block["type"] == "text":
                texts.append(block["text"])
            elif block["type"] == "tool_use":
                calls.append(ToolCall(name=block["name"], arguments=block["input"], id=block["id"]))
        reasoning = self._remembered(thoughts)
        usage = answer.get("usage") or {}
        cached = (usage.get("cache_read_input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
        return Completion(
            message=Message(role="assistant", content="".join(texts), reasoning=reasoning, tool_calls=tuple(calls)),
            finish_reason=_FINISH[answer["stop_reason"]],
            prompt_tokens=(usage.get("input_tokens") or 0) + cached,
            completion_tokens=usage.get("output_tokens") or 0,
        )

    def _remembered(self, thoughts: list[Block]) -> str | None:
        """The text of thinking blocks, under which they are remembered; None without any."""
        if not thoughts:
            return None
        text = "".join(block.get("thinking") or "" for block in thoughts)
        if text:
            self._thoughts[text] = thoughts
        while len(self._thoughts) > _REMEMBERED_TURNS:
            self._thoughts.pop(next(iter(self._thoughts)))
        return text


def _tool(tool: ToolSpec) -> dict[str, Any]:
    schema = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "input_schema": schema}
