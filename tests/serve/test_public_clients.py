"""The `openai` and `anthropic` SDKs and `renderers`' generate client, unmodified, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest
from scripted_server import Script, call, ids_of, new_tokenizer, scripted_server
from toy_engine import ToyEngine, until

from arcforge.chat.tokenizer import Tokenizer

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "name": {"type": "string"}}}
OPENAI_TOOL = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": PARAMETERS}}
ANTHROPIC_TOOL = {"name": "add", "description": "adds", "input_schema": PARAMETERS}
CALL = ("it", "</think>", "hello", *call("add", a="2", name="2"), "<|observation|>")
ANSWER = ("about it", "</think>", "hello world", "<|user|>")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return new_tokenizer()


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[tuple[str, Script, ToyEngine]]:
    with scripted_server(tokenizer) as running:
        yield running


@pytest.fixture
def script(server: tuple[str, Script, ToyEngine]) -> Script:
    return server[1]


@pytest.fixture
def chat(server: tuple[str, Script, ToyEngine]) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", timeout=20, max_retries=0, http_client=http)


@pytest.fixture
def claude(server: tuple[str, Script, ToyEngine]) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    return anthropic.Anthropic(base_url=server[0], api_key="none", timeout=20, max_retries=0, http_client=http)


def test_openai_holds_a_conversation_with_tools(chat: openai.OpenAI, script: Script) -> None:
    script.write(CALL, ANSWER)
    messages: list = [{"role": "user", "content": "hello"}]
    first = chat.chat.completions.create(model="toy", messages=messages, tools=[OPENAI_TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content == "hello" and message.reasoning == "it"
    assert json.loads(message.tool_calls[0].function.arguments) == {"a": 2, "name": "2"}, "typed by the schema"
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "4"}]
    second = chat.chat.completions.create(model="toy", messages=messages, tools=[OPENAI_TOOL])
    assert second.choices[0].message.content == "hello world" and second.choices[0].finish_reason == "stop"
    assert second.usage.prompt_tokens_details.cached_tokens > 0
    assert [model.id for model in chat.models.list()] == ["toy"]


def test_openai_streams_what_it_answers(chat: openai.OpenAI, script: Script) -> None:
    script.write(CALL)
    stream = chat.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "hello"}],
        tools=[OPENAI_TOOL],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "hello"
    assert "".join(getattr(delta, "reasoning", None) or "" for delta in deltas) == "it"
    (streamed,) = [made for delta in deltas for made in delta.tool_calls or ()]
    assert streamed.index == 0 and json.loads(streamed.function.arguments) == {"a": 2, "name": "2"}
    assert chunks[-1].usage.completion_tokens == len(ids_of(script.tokenizer, *CALL))
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"


def test_openai_choices_stop_strings_and_log_probabilities(chat: openai.OpenAI, script: Script) -> None:
    script.write(ANSWER)
    question = [{"role": "user", "content": "hello"}]
    answer = chat.chat.completions.create(
        model="toy", messages=question, n=3, stop=[" wor", "never"], logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.message.content == "hello" and choice.finish_reason == "stop" and choice.stop_reason == " wor"
        assert choice.logprobs.content[0].logprob == -1.0
    streamed = chat.chat.completions.create(model="toy", messages=question, n=2, stop=" wor", stream=True)
    texts = {0: "", 1: ""}
    for chunk in streamed:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "hello", 1: "hello"}


SUB = {"type": "function", "function": {"name": "sub", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize("thinking", [{"type": "enabled"}, {"type": "disabled"}])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_openai_a_call_that_is_asked_for_is_made(chat: openai.OpenAI, script: Script, thinking, choice) -> None:
    """What the model writes for it here is arguments alone; with "required" the likelier of two names is taken."""
    reasoning = ("it", "</think>") if thinking["type"] == "enabled" else ()
    script.write((*reasoning, *call("add", a="1", name="hello"), "<|observation|>"))
    answer = chat.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "hello"}],
        tools=[SUB, OPENAI_TOOL],
        tool_choice=choice,
        extra_body={"thinking": thinking, "return_token_ids": True},
    ).choices[0]
    assert answer.finish_reason == "tool_calls"
    made = answer.message.tool_calls[0].function
    if choice == "required":  # of the toy engine, whose scores only know ids
        scores = {name: [-i for i in ids_of(script.tokenizer, name)] for name in ("add", "sub")}
        best = max(scores, key=lambda name: sum(scores[name]) / len(scores[name]))
        assert made.name == best
        return
    assert json.loads(made.arguments) == {"a": 1, "name": "hello"}
    assert answer.token_ids == script.turns[0], "what was written for the model is told like the rest"
    versions = {run["version"] for run in answer.weight_versions}
    assert versions == {-1, 0}, "and that nobody sampled it"


def test_openai_a_turn_that_would_end_without_a_call_gets_one(chat: openai.OpenAI, script: Script) -> None:
    """The model would end its reasoning with the turn, and an argument's value with another tag."""
    stop, think = script.tokenizer.id("<|user|>"), script.tokenizer.id("<think>")
    begun, opening = ids_of(script.tokenizer, "it"), ids_of(script.tokenizer, "</think>", "<tool_call>", "add")
    first = ids_of(script.tokenizer, "<arg_key>", "a", "</arg_key>", "<arg_value>")
    second = ids_of(script.tokenizer, "<arg_key>", "name", "</arg_key>", "<arg_value>")
    value, close = ids_of(script.tokenizer, "2"), script.tokenizer.id("</arg_value>")
    end = ids_of(script.tokenizer, "</tool_call>", "<|observation|>")
    unread = [0] * (len(opening) - 1 + len(first))
    script.turns = [[*begun, stop, *unread, *value, think, *second, *value, close]]
    answer = chat.chat.completions.create(
        model="toy",
        messages=[{"role": "user", "content": "hello"}],
        tools=[OPENAI_TOOL],
        tool_choice={"type": "function", "function": {"name": "add"}},
        extra_body={"return_token_ids": True},
    ).choices[0]
    assert answer.token_ids == [*begun, *opening, *first, *value, close, *second, *value, close, *end]
    assert json.loads(answer.message.tool_calls[0].function.arguments) == {"a": 2, "name": "2"}
    assert answer.message.reasoning == "it" and answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("most", [1, 2, 9])
def test_openai_a_call_that_has_no_room_ends_by_its_length(chat: openai.OpenAI, script: Script, most: int) -> None:
    script.write(("it", "</think>", *call("add", a="1 2 3 " * 9, name="hello"), "<|observation|>"))
    answer = chat.chat.completions.create(
        model="toy", messages=[{"role": "user", "content": "hello"}], tools=[OPENAI_TOOL], max_tokens=most,
        tool_choice={"type": "function", "function": {"name": "add"}},
    ).choices[0]  # fmt: skip
    assert answer.finish_reason == "length" and answer.message.tool_calls is None


def test_openai_completions(chat: openai.OpenAI, script: Script, tokenizer: Tokenizer) -> None:
    script.turns = [ids_of(tokenizer, "hello world", "<|user|>")]
    prompt = ids_of(tokenizer, "<|assistant|>", "</think>")
    answer = chat.completions.create(model="toy", prompt=[prompt, prompt], max_tokens=50, logprobs=1)
    assert [choice.text for choice in answer.choices] == ["hello world"] * 2
    assert answer.choices[0].logprobs.token_logprobs == [-1.0] * len(script.turns[0])
    chunks = list(chat.completions.create(model="toy", prompt=prompt, max_tokens=50, stream=True, stop=["wor"]))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "hello "
    assert chunks[-1].choices[0].finish_reason == "stop"
    text, half = "世界 🙂", tokenizer.encode("🙂")[:1]  # the turn is cut off in the middle of a character
    script.turns = [[*tokenizer.encode(text), *half, tokenizer.id("<|user|>")]]
    pieces = [
        c.choices[0].text for c in chat.completions.create(model="toy", prompt=prompt, max_tokens=50, stream=True)
    ]
    assert "".join(pieces) == text + "\ufffd" and not any("\ufffd" in piece for piece in pieces[:-1])


def test_openai_errors_are_its_own(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not served here"):
        chat.chat.completions.create(model="other", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.BadRequestError, match="not among the tools"):
        chat.chat.completions.create(
            model="toy",
            messages=[{"role": "user", "content": "hello"}],
            tools=[OPENAI_TOOL],
            tool_choice={"type": "function", "function": {"name": "sub"}},
        )


def test_anthropic_holds_a_conversation_with_tools(claude: anthropic.Anthropic, script: Script) -> None:
    script.write(CALL, ANSWER)
    options: dict = {
        "model": "toy",
        "max_tokens": 100,
        "tools": [ANTHROPIC_TOOL],
        "system": [{"type": "text", "text": "hello"}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    messages: list = [{"role": "user", "content": "hello"}]
    first = claude.messages.create(messages=messages, **options)
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert first.content[0].thinking == "it" and first.content[1].text == "hello"
    assert first.content[2].input == {"a": 2, "name": "2"} and first.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": first.content[2].id, "content": "4"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = claude.messages.create(messages=messages, **options)
    assert second.content[-1].text == "hello world" and second.stop_reason == "end_turn"
    assert second.usage.cache_read_input_tokens > 0
    counted = claude.messages.count_tokens(messages=messages, **{k: v for k, v in options.items() if k != "max_tokens"})
    assert counted.input_tokens == second.usage.input_tokens + second.usage.cache_read_input_tokens


def test_anthropic_streams_what_it_answers(claude: anthropic.Anthropic, script: Script) -> None:
    script.write(CALL)
    with claude.messages.stream(
        model="toy",
        max_tokens=100,
        messages=[{"role": "user", "content": "hello"}],
        tools=[ANTHROPIC_TOOL],
        thinking={"type": "enabled", "budget_tokens": 1024},
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[1].text == "hello" and message.content[2].input == {"a": 2, "name": "2"}
    assert message.stop_reason == "tool_use" and message.usage.output_tokens == len(ids_of(script.tokenizer, *CALL))
    assert kinds.count("content_block_stop") == 3 and kinds[-1] == "message_stop"


def test_anthropic_thinks_only_when_asked_and_stops_at_sequences(claude: anthropic.Anthropic, script: Script) -> None:
    script.write(("hello world", "<|user|>"))
    question = [{"role": "user", "content": "hello"}]
    answer = claude.messages.create(model="toy", max_tokens=50, messages=question, stop_sequences=[" wor"])
    assert [block.type for block in answer.content] == ["text"] and answer.content[0].text == "hello"
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " wor")
    cut = claude.messages.create(model="toy", max_tokens=1, messages=question)
    assert cut.stop_reason == "max_tokens"
    with pytest.raises(anthropic.BadRequestError, match="only an assistant message carries tool_use"):
        use = {"type": "tool_use", "id": "x", "name": "add", "input": {}}
        claude.messages.create(model="toy", max_tokens=5, messages=[{"role": "user", "content": [use]}])


def test_renderers_generates_through_vllms_shape(
    server: tuple[str, Script, ToyEngine], script: Script, tokenizer: Tokenizer
) -> None:
    from renderers.client import generate

    class Renderer:
        """No more than the client asks of one that is given its prompt."""

        supports_tools = True

        def get_stop_token_ids(self) -> list[int]:
            return list(tokenizer.stop_ids)

        def parse_response(self, ids, **options):
            from types import SimpleNamespace

            return SimpleNamespace(
                content=tokenizer.decode(ids), reasoning_content=None, tool_calls=[], reasoning_complete=True
            )

    async def scenario() -> dict:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        client = openai.AsyncOpenAI(base_url=f"{server[0]}/v1", api_key="none", http_client=http)
        return await generate(
            client=client,
            renderer=Renderer(),
            messages=[],
            model="toy",
            prompt_ids=ids_of(tokenizer, "<|assistant|>", "</think>"),
            sampling_params={"max_tokens": 50, "temperature": 1.0},
        )

    script.turns = [ids_of(tokenizer, "hello world", "<|user|>")]
    answer = asyncio.run(scenario())
    assert answer["completion_ids"] == script.turns[0]
    assert answer["completion_logprobs"] == [-1.0] * len(script.turns[0])


def test_a_client_that_leaves_a_stream_of_messages_frees_the_engine(
    server: tuple[str, Script, ToyEngine], script: Script
) -> None:
    url, _, engine = server
    script.turns = [[script.tokenizer.encode("a")[0]] * 100_000]
    body = {"model": "toy", "max_tokens": 100_000, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(trust_env=False) as http, http.stream("POST", f"{url}/v1/messages", json=body) as response:
        next(response.iter_lines())
    until(lambda: not engine.has_work)
