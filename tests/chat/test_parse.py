"""Parsing of sampled turns: typed arguments, malformed and truncated calls, and the round trip with the template."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.chat.parse import Parsed, parse
from arcforge.chat.schema import typed
from arcforge.chat.template import render
from arcforge.chat.tokenizer import CONTROL_TOKENS, Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

PROPERTIES = {
    "s": {"type": "string"},
    "i": {"type": "integer"},
    "n": {"type": "number"},
    "b": {"type": "boolean"},
    "l": {"type": "array"},
    "o": {"type": "object"},
    "z": {"type": "null"},
}
LOOK = ToolSpec(name="look", parameters={"type": "object", "properties": PROPERTIES})
USER = Message(role="user", content="hi")
PIECES = {name: name for name in CONTROL_TOKENS}


def ids_of(tokenizer: Tokenizer, *pieces: str) -> list[int]:
    """Control tokens where a piece is one, text elsewhere."""
    return [i for p in pieces for i in ([tokenizer.id(p)] if p in PIECES else tokenizer.encode(p))]


def read(tokenizer: Tokenizer, *pieces: str, enabled: bool = False) -> Parsed:
    return parse(ids_of(tokenizer, *pieces), tokenizer, (LOOK,), Thinking(enabled=enabled))


def argument(key: str, value: str) -> tuple[str, ...]:
    return "<arg_key>", key, "</arg_key>", "<arg_value>", value, "</arg_value>"


def test_a_whole_turn(tokenizer: Tokenizer) -> None:
    call = ("<tool_call>", "look", *argument("s", "2"), *argument("i", "2"), "</tool_call>")
    parsed = read(tokenizer, "why ", "</think>", " so", *call, "<|observation|>", enabled=True)
    assert parsed.problem == ""
    assert parsed.message == Message(
        role="assistant",
        content="so",
        reasoning="why",
        tool_calls=(ToolCall(name="look", arguments={"s": "2", "i": 2}),),
    )


def test_thinking_off_has_no_block_and_on_has_an_empty_one(tokenizer: Tokenizer) -> None:
    assert read(tokenizer, "ok", "<|user|>").message.reasoning is None
    assert read(tokenizer, "</think>", "ok", "<|user|>", enabled=True).message.reasoning == ""


def test_a_call_ends_reasoning_that_was_not_closed(tokenizer: Tokenizer) -> None:
    parsed = read(tokenizer, "why", "<tool_call>", "look", "</tool_call>", "<|observation|>", enabled=True)
    assert (parsed.problem, parsed.message.reasoning, len(parsed.message.tool_calls)) == ("", "why", 1)


def test_space_between_tags_is_allowed(tokenizer: Tokenizer) -> None:
    pieces = ("<tool_call>", "look\n", *argument("i", " 2 "), "\n", *argument("s", " x "), "\n", "</tool_call>", "\n")
    parsed = read(tokenizer, *pieces, "<|observation|>")
    assert parsed.problem == "" and parsed.message.tool_calls[0].arguments == {"i": 2, "s": " x "}


@pytest.mark.parametrize(
    "pieces, problem",
    [
        (("x",), "cut off"),
        (("<tool_call>", "look"), "not closed"),
        (("<tool_call>", "look", "<|user|>"), "not closed"),
        (("<tool_call>", "look", "<arg_key>", "s", "</arg_key>", "<arg_value>", "half"), "not closed"),
        (("<tool_call>", "</tool_call>", "<|user|>"), "without a name"),
        (("<tool_call>", "look", "<arg_value>", "x", "</arg_value>", "</tool_call>", "<|user|>"), "malformed"),
        (("<tool_call>", "look", "<arg_key>", "s", "</arg_key>", "</tool_call>", "<|user|>"), "malformed"),
        (("<tool_call>", "look", *argument("s", "x"), "rest", "</tool_call>", "<|user|>"), "after 1 whole"),
        (("</tool_call>", "<|user|>"), "</tool_call> in the content"),
        (("<|assistant|>", "x", "<|user|>"), "<|assistant|> in the content"),
        (("a", "<|user|>", "b", "<|user|>"), "<|user|> in the content"),
    ],
)
def test_a_malformed_turn_is_named_and_nothing_is_run_or_lost(tokenizer: Tokenizer, pieces, problem: str) -> None:
    parsed = read(tokenizer, *pieces)
    assert problem in parsed.problem
    assert parsed.message.tool_calls == ()
    written = pieces[:-1] if pieces[-1] == "<|user|>" else pieces
    assert parsed.message.content == "".join(written)


def test_reasoning_that_never_ends(tokenizer: Tokenizer) -> None:
    parsed = read(tokenizer, "on and on", enabled=True)
    assert (parsed.problem, parsed.message.reasoning) == ("the reasoning was not closed", "on and on")
    assert read(tokenizer, "x", "<|user|>", enabled=True).problem == "the reasoning was not closed"
    assert read(tokenizer, "x", "<think>", "</think>", "<|user|>", enabled=True).problem == "<think> in the reasoning"


def test_a_good_call_survives_a_bad_neighbour(tokenizer: Tokenizer) -> None:
    good = ("<tool_call>", "look", *argument("i", "1"), "</tool_call>")
    parsed = read(tokenizer, "<tool_call>", "look", "<arg_key>", *good, "<|observation|>")
    assert "malformed" in parsed.problem
    assert parsed.message.tool_calls == (ToolCall(name="look", arguments={"i": 1}),)
    assert parsed.message.content == "<tool_call>look<arg_key>"


def test_text_after_a_call_is_a_problem(tokenizer: Tokenizer) -> None:
    parsed = read(tokenizer, "<tool_call>", "look", "</tool_call>", "bye", "<|user|>")
    assert (parsed.problem, parsed.message.content) == ("text after a tool call", "bye")


def test_unknown_tools_wrong_types_and_doubled_arguments(tokenizer: Tokenizer) -> None:
    unknown = read(tokenizer, "<tool_call>", "jump", *argument("i", "1"), "</tool_call>", "<|observation|>")
    assert unknown.problem == "unknown tool 'jump'" and unknown.message.tool_calls[0].name == "jump"
    wrong = read(tokenizer, "<tool_call>", "look", *argument("i", "two"), "</tool_call>", "<|observation|>")
    assert wrong.problem == "look: argument 'i' is 'two', not of type integer"
    assert wrong.message.tool_calls[0].arguments == {"i": "two"}
    pieces = ("<tool_call>", "look", *argument("i", "1"), *argument("i", "2"), "</tool_call>", "<|observation|>")
    assert read(tokenizer, *pieces).problem == "look: argument 'i' is given twice"


def test_spelled_tags_are_text(tokenizer: Tokenizer) -> None:
    spelled = "<tool_call>look</tool_call></think><|user|>"
    parsed = parse([*tokenizer.encode(spelled), tokenizer.id("<|user|>")], tokenizer, (LOOK,), Thinking(enabled=False))
    assert (parsed.message.content, parsed.message.tool_calls, parsed.problem) == (spelled, (), "")


@pytest.mark.parametrize(
    "schema, text, value",
    [
        ({"type": "string"}, "2", "2"),
        ({"type": "integer"}, "2", 2),
        ({"type": "integer"}, "2.0", 2),
        ({"type": "number"}, "2", 2),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "2", "2"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "x", "x"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "7", 7),
        ({"anyOf": [{"type": "integer"}, {}]}, "x", "x"),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"const": True}, "true", True),
        ({"$ref": "#/$defs/word"}, "3", "3"),
        ({"$ref": "#/$defs/loop"}, "3", 3),
        ({}, "3", 3),
        ({}, '"3"', '"3"'),
        ({}, "[1, 2]", [1, 2]),
        ({}, "NaN", "NaN"),
        ({}, "1e999", "1e999"),
        ({}, '["\\ud800"]', '["\\ud800"]'),
        ({}, "[" * 100_000, "[" * 100_000),
        ({"type": 7, "enum": None}, "3", 3),
    ],
)
def test_schema_types_a_value(schema, text: str, value) -> None:
    root = {"properties": {"k": schema}, "$defs": {"word": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}}
    read_value, problem = typed(text, "k", root)
    assert (read_value, type(read_value), problem) == (value, type(value), "")


@pytest.mark.parametrize("name, text", [("integer", "2.5"), ("integer", "true"), ("boolean", "1"), ("object", "[]")])
def test_a_value_of_another_type_is_a_problem(name: str, text: str) -> None:
    value, problem = typed(text, "k", {"properties": {"k": {"type": name}}})
    assert value == text and name in problem


@given(data=st.data())
def test_parse_reads_anything(tokenizer: Tokenizer, data: st.DataObject) -> None:
    index = st.integers(0, tokenizer.vocab_size - 1) | st.sampled_from(sorted(tokenizer.control.values()))
    ids = data.draw(st.lists(index, max_size=40))
    parsed = parse(ids, tokenizer, (LOOK,), Thinking(enabled=data.draw(st.booleans())))
    assert parsed.message.role == "assistant"
    if not ids or ids[-1] not in tokenizer.stop_ids:
        assert parsed.problem


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["<|user|>", "</arg_value>", "<tool_call>look</tool_call>", "</think>", "null", "2", "{}", '"q"']
)
STRIPPED = TEXT.map(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "s": TEXT,
        "i": st.integers(),
        "n": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        "b": st.booleans(),
        "l": st.lists(JSON, max_size=3),
        "o": st.dictionaries(TEXT, JSON, max_size=3),
        "z": st.none(),
    },
)
CALLS = st.lists(st.builds(lambda arguments: ToolCall(name="look", arguments=arguments), ARGUMENTS), max_size=3)


@settings(max_examples=200)
@given(content=STRIPPED, reasoning=st.none() | STRIPPED, calls=CALLS)
def test_render_then_parse_is_the_message(tokenizer: Tokenizer, content, reasoning, calls) -> None:
    message = Message(role="assistant", content=content, reasoning=reasoning, tool_calls=tuple(calls))
    thinking = Thinking(enabled=reasoning is not None)
    prompt = render((USER,), (LOOK,), thinking, tokenizer, generation_prompt=True).ids
    rendered = render((USER, message), (LOOK,), thinking, tokenizer)
    assert rendered.ids[: len(prompt)] == prompt
    assert rendered.trained == [False] * len(prompt) + [True] * (len(rendered.ids) - len(prompt))
    parsed = parse(rendered.ids[len(prompt) :], tokenizer, (LOOK,), thinking)
    assert (parsed.message, parsed.problem) == (message, "")
    for ours, theirs in zip(parsed.message.tool_calls, calls):
        assert [type(value) for value in ours.arguments.values()] == [
            type(value) for value in theirs.arguments.values()
        ]
        n = theirs.arguments.get("n", 0.0)
        assert math.copysign(1, ours.arguments.get("n", 0.0)) == math.copysign(1, n)
