"""OpenAI- and Anthropic-style completers against a real server: requests as the APIs want them, answers as messages."""

import asyncio
import json

import pytest

from arcforge.clients.anthropic import MessagesCompleter
from arcforge.clients.ids import with_call_ids
from arcforge.clients.openai import ChatCompleter
from arcforge.core.errors import EngineError, RolloutTimeout
from arcforge.core.messages import Message, Sampling, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Completer, Completion, CompletionRequest

LOOK = ToolSpec(name="look", description="see", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
MESSAGES = (
    Message(role="system", content="be good"),
    Message(role="user", content="hi"),
    Message(
        role="assistant",
        content="so",
        reasoning="why",
        tool_calls=(ToolCall(name="look", arguments={"a": 2}), ToolCall(name="look", id="mine")),
    ),
    Message(role="tool", content="r1"),
    Message(role="tool", content="r2", tool_call_id="mine"),
    Message(role="user", content="go on"),
)
REQUEST = CompletionRequest(
    messages=MESSAGES,
    tools=(LOOK,),
    thinking=Thinking(preserved=True),
    sampling=Sampling(max_tokens=9, temperature=0.5, top_p=0.9, seed=3, stop_ids=(4,)),
    session="rollout-1",
)
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 2}'}}


def chat_answer(finish="stop", problem=None, **message):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": None, **message}}
    if problem:
        choice["problem"] = problem
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 5}}


def completed(completer: Completer, request: CompletionRequest = REQUEST) -> Completion:
    assert isinstance(completer, Completer)
    return asyncio.run(completer.complete(request))


def test_openai_request(server) -> None:
    server.handler = lambda path, body: chat_answer(content="ok")
    completed(ChatCompleter(server.url + "/v1/", "glm", api_key="secret", timeout=5))
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret" and headers["x-session-id"] == "rollout-1"
    assert {key: body[key] for key in ("model", "max_tokens", "temperature", "top_p", "seed", "stop_token_ids")} == {
        "model": "glm",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop_token_ids": [4],
    }
    assert body["chat_template_kwargs"] == {"enable_thinking": True, "clear_thinking": False}
    assert body["tools"] == [{"type": "function", "function": LOOK.model_dump()}]
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    assistant = body["messages"][2]
    assert assistant["reasoning"] == assistant["reasoning_content"] == "why" and assistant["content"] == "so"
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"a": 2}
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_2_0", "mine"]
    assert [message["tool_call_id"] for message in body["messages"][3:5]] == ["call_2_0", "mine"]


def test_openai_dialects(server) -> None:
    server.handler = lambda path, body: chat_answer(content="ok")
    off = REQUEST.model_copy(update={"thinking": Thinking(enabled=False), "tools": ()})
    completed(ChatCompleter(server.url, "m", dialect="glm"), off)
    completed(ChatCompleter(server.url, "m", dialect="openai"), off)
    glm, openai = (body for _, body, _ in server.requests)
    assert glm["thinking"] == {"type": "disabled", "clear_thinking": True}
    assert glm["messages"][2]["reasoning_content"] == "why" and "reasoning" not in glm["messages"][2]
    assert openai["max_completion_tokens"] == 9
    for body in (glm, openai):
        assert not {"chat_template_kwargs", "stop_token_ids", "tools"} & body.keys()
    assert not {"thinking", "max_tokens"} & openai.keys() and "reasoning_content" not in openai["messages"][2]


def test_openai_answer(server) -> None:
    server.handler = lambda path, body: chat_answer("tool_calls", reasoning_content="hm", tool_calls=[CALL])
    assert completed(ChatCompleter(server.url, "m")) == Completion(
        message=Message(
            role="assistant", reasoning="hm", tool_calls=(ToolCall(name="look", arguments={"a": 2}, id="c1"),)
        ),
        finish_reason="tool_calls",
        prompt_tokens=11,
        completion_tokens=5,
    )


@pytest.mark.parametrize("arguments", ["{", "[1]", "3"])
def test_openai_bad_arguments_are_malformed(server, arguments: str) -> None:
    call = {"id": "c", "function": {"name": "look", "arguments": arguments}}
    server.handler = lambda path, body: chat_answer("tool_calls", tool_calls=[call])
    completion = completed(ChatCompleter(server.url, "m"))
    assert completion.finish_reason == "malformed" and completion.problem.startswith("look: the arguments are no")
    assert completion.message.tool_calls == (ToolCall(name="look", id="c"),)


@pytest.mark.parametrize(
    "given, problem, expected",
    [("length", "cut", "length"), ("stop", "odd", "malformed"), ("stop", "", "stop"), ("tool_calls", "", "stop")],
)
def test_openai_finish_reasons(server, given: str, problem: str, expected: str) -> None:
    server.handler = lambda path, body: chat_answer(given, problem, content="x")
    completion = completed(ChatCompleter(server.url, "m"))
    assert (completion.finish_reason, completion.problem) == (expected, problem)


@pytest.mark.parametrize(
    "answer, told",
    [
        ({"choices": []}, "unexpected answer"),
        (chat_answer(content=3), "unexpected answer"),
        (chat_answer("content_filter"), "refused to answer"),
        (chat_answer(refusal="no"), "refused to answer: no"),
        ((400, {"error": {"message": "bad model"}}, {}), "400: bad model"),
        ((422, {"detail": "what"}, {}), "422: what"),
        ((401, "go away", {}), "401: go away"),
    ],
)
def test_openai_failures(server, answer, told: str) -> None:
    server.handler = lambda path, body: answer
    with pytest.raises(EngineError, match=told):
        completed(ChatCompleter(server.url, "m", timeout=5))
    assert len(server.requests) == 1


def test_a_busy_endpoint_is_asked_again(server) -> None:
    answers = [(429, "slow down", {"retry-after": "0.2"}), (503, "busy", {}), chat_answer(content="ok")]
    server.handler = lambda path, body: answers.pop(0)
    assert completed(ChatCompleter(server.url, "m", timeout=10)).message.content == "ok"
    assert len(server.requests) == 3


def test_a_busy_endpoint_is_not_asked_for_ever(server) -> None:
    server.handler = lambda path, body: (429, "slow down", {"retry-after": "3600"})
    with pytest.raises(EngineError, match="429: slow down"):
        completed(ChatCompleter(server.url, "m", timeout=10))
    server.handler = lambda path, body: (429, "slow down", {"retry-after": "5"})
    with pytest.raises(RolloutTimeout):
        completed(ChatCompleter(server.url, "m", timeout=0.3))


def test_with_call_ids_pairs_by_order() -> None:
    calls = tuple(ToolCall(name=name) for name in "ab")
    messages = (
        Message(role="assistant", tool_calls=calls),
        Message(role="tool", content="b", tool_call_id="call_0_1"),
        Message(role="tool", content="a"),
        Message(role="tool", content="of nothing"),
        Message(role="assistant", tool_calls=calls[:1]),
        Message(role="tool", content="a again"),
    )
    filled = with_call_ids(messages)
    assert [m.tool_call_id for m in filled] == ["", "call_0_1", "call_0_0", "", "", "call_4_0"]
    assert messages[2].tool_call_id == ""


def anthropic_answer(*blocks, stop="end_turn"):
    usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 5}
    return {"content": list(blocks), "stop_reason": stop, "usage": usage}


def test_anthropic_request(server) -> None:
    server.handler = lambda path, body: anthropic_answer({"type": "text", "text": "ok"})
    completed(MessagesCompleter(server.url, "m", api_key="secret", timeout=5))
    path, body, headers = server.requests[0]
    assert path == "/v1/messages" and headers["x-api-key"] == "secret" and headers["anthropic-version"]
    assert body == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "system": "be good",
        "tools": [{"name": "look", "description": "see", "input_schema": LOOK.parameters}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "so"},
                    {"type": "tool_use", "id": "call_2_0", "name": "look", "input": {"a": 2}},
                    {"type": "tool_use", "id": "mine", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_2_0", "content": "r1"},
                    {"type": "tool_result", "tool_use_id": "mine", "content": "r2"},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
    }


def test_anthropic_thinking_comes_back_as_it_was_signed(server) -> None:
    thoughts = [
        {"type": "thinking", "thinking": "hm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": " so", "signature": "s2"},
    ]
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}
    server.handler = lambda path, body: anthropic_answer(*thoughts, call, stop="tool_use")
    completer = MessagesCompleter(server.url, "m", timeout=5, thinking_budget=2000)
    completion = completed(completer)
    assert completion.finish_reason == "tool_calls" and completion.message.reasoning == "hm so"
    assert (completion.prompt_tokens, completion.completion_tokens) == (11, 5)
    history = (Message(role="user", content="hi"), completion.message, Message(role="tool", content="r"))
    completed(completer, CompletionRequest(messages=history))
    completed(completer, CompletionRequest(messages=history, thinking=Thinking(enabled=False)))
    first, second, third = (body for _, body, _ in server.requests)
    assert first["thinking"] == {"type": "enabled", "budget_tokens": 2000} and first["max_tokens"] == 2009
    assert "temperature" not in first and "thinking" not in third and third["temperature"] == 1.0
    assert first["messages"][1]["content"][0]["type"] == "text"  # reasoning from elsewhere has no signature
    assert second["messages"][1]["content"] == [*thoughts, call]


@pytest.mark.parametrize(
    "answer, told",
    [
        (anthropic_answer(stop="refusal"), "refusal"),
        ({"content": []}, "unexpected answer"),
        (anthropic_answer({"type": "tool_use", "name": "x", "input": [], "id": "1"}), "unexpected answer"),
        ((400, {"type": "error", "error": {"message": "too long"}}, {}), "400: too long"),
    ],
)
def test_anthropic_failures(server, answer, told: str) -> None:
    server.handler = lambda path, body: answer
    with pytest.raises(EngineError, match=told):
        completed(MessagesCompleter(server.url, "m", timeout=5))


def test_anthropic_length(server) -> None:
    server.handler = lambda path, body: anthropic_answer({"type": "text", "text": "o"}, stop="max_tokens")
    assert completed(MessagesCompleter(server.url, "m", timeout=5)).finish_reason == "length"
