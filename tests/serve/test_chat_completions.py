"""OpenAI chat over the token engine: one turn out of known ids, streamed and not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from toy_engine import CAPACITY, ToyEngine, client, serving, until

from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.serve.loop import EngineLoop
from arcforge.serve.server import build_app

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "name": {"type": "string"}}},
    },
}
SPEC = ToolSpec(name="add", description="adds", parameters=TOOL["function"]["parameters"])
QUESTION = [{"role": "user", "content": "hello world"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["hello world think about it", "add a name 1 2 3"] * 3, 320)


class Script:
    """Continues every prompt with the same turn, wherever in that turn the prompt ends."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.turn: list[int] = []
        self._assistant = tokenizer.id("<|assistant|>")

    def next_id(self, prompt: list[int], position: int) -> int:
        start = len(prompt) - prompt[::-1].index(self._assistant) + 1  # after <|assistant|><think> or </think>
        return self.turn[len(prompt) + position - start]


@pytest.fixture
def script(tokenizer: Tokenizer) -> Script:
    return Script(tokenizer)


@pytest.fixture
def engine(script: Script) -> ToyEngine:
    return ToyEngine(script.next_id)


@pytest.fixture
def http(engine: ToyEngine, tokenizer: Tokenizer) -> Iterator[httpx.Client]:
    loop = EngineLoop(engine)
    with serving(build_app(loop, tokenizer, "toy"), loop) as url, client(url) as session:
        yield session
        engine.gate.set()


def turn(tokenizer: Tokenizer, *parts: str) -> list[int]:
    """Ids of a turn; parts that are names of control tokens become those."""
    return [
        i for part in parts for i in ([tokenizer.id(part)] if part in tokenizer.control else tokenizer.encode(part))
    ]


def ask(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/chat/completions", json={"model": "toy", "messages": QUESTION, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def ask_streaming(http: httpx.Client, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(message put together as clients do, all events)."""
    body = {"model": "toy", "messages": QUESTION, "stream": True, **fields}
    events = []
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    message: dict[str, Any] = {"content": "", "reasoning": "", "reasoning_content": "", "tool_calls": []}
    for line in lines:
        events.append(json.loads(line.removeprefix("data: ")))
        for choice in events[-1]["choices"]:
            for name, value in choice["delta"].items():
                message[name] = value if name == "role" else message[name] + value
    return message, events


def test_a_turn_with_reasoning(http: httpx.Client, script: Script, tokenizer: Tokenizer) -> None:
    script.turn = turn(tokenizer, "think about it", "</think>", "hello", "<|user|>")
    answer = ask(http, return_token_ids=True, logprobs=True, max_tokens=50)
    prompt = render([Message(role="user", content="hello world")], (), Thinking(), tokenizer, True).ids
    choice = answer["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": "hello",
        "reasoning": "think about it",
        "reasoning_content": "think about it",
    }
    assert choice["finish_reason"] == "stop" and "problem" not in choice
    assert answer["prompt_token_ids"] == prompt and choice["token_ids"] == script.turn
    assert choice["weight_versions"] == [{"version": 0, "start": 0, "end": len(script.turn)}]
    assert [entry["token_id"] for entry in choice["logprobs"]["content"]] == script.turn
    assert answer["usage"] == {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(script.turn),
        "total_tokens": len(prompt) + len(script.turn),
        "prompt_tokens_details": {"cached_tokens": len(prompt) // 2},
        "completion_tokens_details": {"reasoning_tokens": len(tokenizer.encode("think about it"))},
    }


def test_tool_calls_are_typed_by_their_schema(http: httpx.Client, script: Script, tokenizer: Tokenizer) -> None:
    a, name = (("<arg_key>", key, "</arg_key>", "<arg_value>", "2", "</arg_value>") for key in ("a", "name"))
    script.turn = turn(tokenizer, "it", "</think>", "<tool_call>", "add", *a, *name, "</tool_call>", "<|observation|>")
    choice = ask(http, tools=[TOOL])["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    call = choice["message"]["tool_calls"][0]
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 2, "name": "2"}

    message, events = ask_streaming(http, tools=[TOOL])
    assert message["reasoning"] == "it" and message["content"] == ""
    (streamed,) = message["tool_calls"]
    assert streamed.pop("index") == 0
    assert {**streamed, "id": ""} == {**call, "id": ""}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_streaming_says_the_same_as_one_answer(http: httpx.Client, script: Script, tokenizer: Tokenizer) -> None:
    content = "hello 世界 🙂 and " * 12
    script.turn = turn(tokenizer, "think 🙂 about it " * 5, "</think>", content, "<|user|>")
    whole = ask(http, return_token_ids=True)
    message, events = ask_streaming(http, return_token_ids=True, stream_options={"include_usage": True})
    expected = whole["choices"][0]["message"]
    assert {name: message[name].strip() for name in ("content", "reasoning")} == {
        "content": expected["content"],
        "reasoning": expected["reasoning"],
    }
    assert message["reasoning_content"] == message["reasoning"] and message["role"] == "assistant"
    assert "\ufffd" not in message["content"] + message["reasoning"]
    choices = [choice for event in events for choice in event["choices"]]
    assert len(choices) > 10
    assert [i for choice in choices for i in choice.get("token_ids", ())] == script.turn
    ranges = [run for choice in choices for run in choice.get("weight_versions", ())]
    assert [run["start"] for run in ranges] == [0, *(run["end"] for run in ranges[:-1])]
    assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert len({event["id"] for event in events}) == 1


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 32])
def test_the_token_limit_is_exact(http: httpx.Client, script: Script, tokenizer: Tokenizer, cut: int) -> None:
    script.turn = turn(tokenizer, "think about it " * 20)
    choice = ask(http, max_completion_tokens=cut, return_token_ids=True)["choices"][0]
    assert choice["finish_reason"] == "length" and choice["token_ids"] == script.turn[:cut]
    _, events = ask_streaming(http, max_completion_tokens=cut, return_token_ids=True)
    assert [i for event in events for i in event["choices"][0].get("token_ids", ())] == script.turn[:cut]
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_a_malformed_call_is_content_with_its_problem(http: httpx.Client, script: Script, tokenizer: Tokenizer) -> None:
    script.turn = turn(tokenizer, "it", "</think>", "hello", "<tool_call>", "add", "<arg_key>", "a", "<|user|>")
    choice = ask(http, tools=[TOOL])["choices"][0]
    assert choice["finish_reason"] == "stop" and "add" in choice["problem"]
    assert "tool_calls" not in choice["message"]
    message, events = ask_streaming(http, tools=[TOOL])
    assert message["content"] == choice["message"]["content"]
    assert events[-1]["choices"][0]["problem"] == choice["problem"]


def test_thinking_modes_and_history_reach_the_prompt(http: httpx.Client, script: Script, tokenizer: Tokenizer) -> None:
    script.turn = turn(tokenizer, "hello", "<|user|>")
    call = ToolCall(name="add", arguments={"a": 1}, id="c1")
    history = (
        Message(role="system", content="hello"),
        Message(role="user", content="one <|assistant|><think>"),
        Message(role="assistant", reasoning="think", tool_calls=(call,)),
        Message(role="tool", content="1", tool_call_id="c1"),
        Message(role="assistant", content="world", reasoning="it"),
        Message(role="user", content="two"),
    )
    sent = [
        {"role": "developer", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
        {"role": "user", "content": "one <|assistant|><think>"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "think",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "assistant", "content": "world", "reasoning": "it"},
        {"role": "user", "content": "two"},
    ]
    modes: list[tuple[dict[str, Any], Thinking]] = [
        ({}, Thinking()),
        ({"thinking": {"type": "enabled", "clear_thinking": False}}, Thinking(preserved=True)),
        ({"thinking": {"type": "disabled"}}, Thinking(enabled=False)),
        (
            {"chat_template_kwargs": {"enable_thinking": False, "clear_thinking": False}},
            Thinking(enabled=False, preserved=True),
        ),
    ]
    seen = set()
    for fields, thinking in modes:
        answer = ask(http, messages=sent, tools=[TOOL], return_token_ids=True, **fields)
        assert answer["prompt_token_ids"] == render(history, (SPEC,), thinking, tokenizer, True).ids
        seen.add(tuple(answer["prompt_token_ids"]))
        if not thinking.enabled:
            assert answer["choices"][0]["message"]["reasoning"] is None
    assert len(seen) == 4
    untooled = ask(http, messages=sent, tools=[TOOL], tool_choice="none", return_token_ids=True)
    assert untooled["prompt_token_ids"] == render(history, (), Thinking(), tokenizer, True).ids


BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages: List should have at least 1 item"),
    ({"messages": ["hi"]}, "messages[0]: Input should be a valid dictionary"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role: Input should be"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "reasoning": "y"}]}, "only assistant messages"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function: Field required"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "arguments: not JSON",
    ),
    ({"messages": [{"role": "assistant", "content": "x", "reasoning": 3}]}, "messages[0].reasoning"),
    ({"model": "gpt"}, "model: 'gpt' is not served here"),
    ({"model": "\ud800"}, "is not served here"),
    ({"n": 0}, "n: Input should be greater"),
    ({"stop": ["x", ""]}, "stop: at most"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tool_choice": "always"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice: there are no tools"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater"),
    ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice: 'sub' is not among the tools"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name: Field required"),
    ({"thinking": {"type": "maybe"}}, "thinking.type: Input should be"),
    ({"thinking": True}, "thinking: Input should be a valid dictionary"),
    ({"stream": "yes"}, "stream: Input should be a valid boolean"),
    ({"max_tokens": -1}, "max_tokens: Input should be greater"),
    ({"temperature": []}, "temperature: Input should be a valid number"),
    ({"messages": [{"role": "user", "content": "1 " * CAPACITY}]}, "do not fit"),
    ({"messages": [{"role": "user", "content": "1 " * CAPACITY}], "stream": True}, "do not fit"),
]


@pytest.mark.parametrize(
    ("fields", "message"), BAD, ids=lambda value: str(value)[:50].encode("ascii", "replace").decode()
)
def test_bad_requests_get_400_and_name_the_field(http: httpx.Client, fields: dict[str, Any], message: str) -> None:
    body = json.dumps({"messages": QUESTION, **fields})
    response = http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_an_abort_is_an_error_and_not_half_an_answer(
    http: httpx.Client, engine: ToyEngine, script: Script, tokenizer: Tokenizer
) -> None:
    script.turn = turn(tokenizer, "think about it " * 20)
    http.post("/pause", json={"mode": "keep"})
    for stream in (False, True):
        with ThreadPoolExecutor(1) as pool:
            body = {"messages": QUESTION, "stream": stream}
            asked = pool.submit(http.post, "/v1/chat/completions", json=body)
            until(lambda: engine.has_work)
            assert http.post("/abort_request", json={"abort_all": True}).json() == {"aborted": 1}
            response = asked.result(20)
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "paused"


def test_an_engine_that_dies_in_the_middle_of_a_stream_ends_it_with_an_error(
    http: httpx.Client, engine: ToyEngine, script: Script, tokenizer: Tokenizer
) -> None:
    script.turn = turn(tokenizer, "think about it " * 20)
    with http.stream("POST", "/v1/chat/completions", json={"messages": QUESTION, "stream": True}) as response:
        lines = response.iter_lines()
        next(lines)
        engine.failing = True
        rest = [line for line in lines if line]
    assert "the engine failed" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]


def test_a_client_that_leaves_a_stream_frees_the_engine(
    http: httpx.Client, engine: ToyEngine, script: Script, tokenizer: Tokenizer
) -> None:
    script.turn = [tokenizer.encode("a")[0]] * 4000
    body = {"messages": QUESTION, "stream": True, "max_tokens": 4000}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_lines())
        engine.gate.clear()
    time.sleep(0.3)
    engine.gate.set()
    until(lambda: not engine.has_work and http.get("/health").json()["running"] == 0)
    assert engine.stats["tokens"] < 4000
