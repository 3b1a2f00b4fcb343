"""The incremental reader: for any split of any ids, its deltas joined are what `parse` reads, and nothing comes too early."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arcforge.chat.parse import Parsed, parse
from arcforge.chat.stream import CallReady, ContentDelta, Event, ReasoningDelta, TurnReader
from arcforge.chat.template import render
from arcforge.chat.tokenizer import CONTROL_TOKENS, Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

LOOK = ToolSpec(
    name="look",
    parameters={"type": "object", "properties": {"s": {"type": "string"}, "i": {"type": "integer"}, "n": {}}},
)
DONE = ToolSpec(name="done")
TOOLS = (LOOK, DONE)
ON, OFF = Thinking(), Thinking(enabled=False)
ARGUMENT = ("<arg_key>", "i", "</arg_key>", "<arg_value>", "2", "</arg_value>")
CALL = ("<tool_call>", "look", *ARGUMENT, "</tool_call>")


HALF = "half a character"


def ids_of(tokenizer: Tokenizer, pieces) -> list[int]:
    """Control tokens where a piece is one, text elsewhere."""
    ids = {name: [tokenizer.id(name)] for name in CONTROL_TOKENS} | {HALF: tokenizer.encode("é")[:1]}
    return [i for piece in pieces for i in (ids[piece] if piece in ids else tokenizer.encode(piece))]


def read(tokenizer: Tokenizer, parts, thinking: Thinking) -> tuple[list[list[Event]], Parsed]:
    """The events of every part and of the end, and the whole turn."""
    reader = TurnReader(tokenizer, TOOLS, thinking)
    events = [reader.feed(part) for part in parts]
    rest, parsed = reader.finish()
    return [*events, rest], parsed


def joined(groups: list[list[Event]]) -> tuple[str, str, list[ToolCall]]:
    events = [event for group in groups for event in group]
    calls = [event for event in events if isinstance(event, CallReady)]
    assert [event.index for event in calls] == list(range(len(calls)))
    assert all(event.text for event in events if not isinstance(event, CallReady))
    reasoning, content = (
        "".join(event.text for event in events if isinstance(event, kind)) for kind in (ReasoningDelta, ContentDelta)
    )
    return reasoning, content, [event.call for event in calls]


def check(tokenizer: Tokenizer, parts, thinking: Thinking) -> None:
    """Against `parse`; compared as written, since 1, 1.0 and True are equal."""
    whole = parse([i for part in parts for i in part], tokenizer, TOOLS, thinking)
    groups, parsed = read(tokenizer, parts, thinking)
    reasoning, content, calls = joined(groups)
    assert repr(parsed) == repr(whole)
    assert (reasoning, content) == (whole.message.reasoning or "", whole.message.content)
    assert repr(calls) == repr(list(whole.message.tool_calls))


def split(data: st.DataObject, ids: list[int]) -> list[list[int]]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=len(ids) + 1), label="cuts"))
    return [ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)])]


FRAGMENTS = st.sampled_from(
    [
        *CONTROL_TOKENS,
        "look",
        "done",
        "jump",
        "i",
        "s",
        "2",
        "x y",
        " ",
        "\n",
        " é ",
        "東京",
        "</think>",
        "{}",
        "\u2003",
    ]
)
SENSIBLE = st.sampled_from([CALL, ("<tool_call>", "done", "</tool_call>"), ("why ", "</think>", " so"), ARGUMENT])
PIECES = st.lists(FRAGMENTS.map(lambda piece: (piece,)) | SENSIBLE, max_size=12).map(lambda groups: sum(groups, ()))


@settings(max_examples=300)
@given(data=st.data(), thinking=st.sampled_from([ON, OFF]))
def test_any_ids_in_any_split(tokenizer: Tokenizer, data: st.DataObject, thinking: Thinking) -> None:
    anything = st.integers(-2, tokenizer.vocab_size + 2)
    first_bytes = st.sampled_from([i for i in range(tokenizer.vocab_size) if len(tokenizer.token_bytes(i)) == 1])
    control = st.sampled_from(sorted(tokenizer.control.values()))
    ids = data.draw(st.lists(anything | first_bytes | control, max_size=40), label="ids")
    check(tokenizer, split(data, ids), thinking)


@settings(max_examples=500)
@given(data=st.data(), pieces=PIECES, thinking=st.sampled_from([ON, OFF]))
def test_calls_and_tags_in_any_split(tokenizer: Tokenizer, data, pieces, thinking: Thinking) -> None:
    check(tokenizer, split(data, ids_of(tokenizer, pieces)), thinking)


TURNS = {
    "plain": ("why ", "</think>", " so ", *CALL, "<|observation|>"),
    "a call ends reasoning": ("why", *CALL, "<|observation|>"),
    "no arguments": ("</think>", "<tool_call>", "done", "</tool_call>", "<|observation|>"),
    "unknown tool": ("</think>", "<tool_call>", "jump", "</tool_call>", "<|observation|>"),
    "cut off in a call": ("</think>", "so ", "<tool_call>", "look", "<arg_key>", "i", "</arg_key>", "<arg_value>", "2"),
    "a call in a call": ("</think>", "<tool_call>", "look ", "<arg_key>", " ", *CALL, "<|observation|>"),
    "space before a call in a call": ("</think>", "<tool_call>", "look", "<arg_key>", " ", "<tool_call>"),
    "text after a call": ("</think>", *CALL, " bye ", *CALL, "\n", "<|user|>"),
    "a malformed call after a call": ("</think>", *CALL, "<tool_call>", "x", "<think>", "</tool_call>", "<|user|>"),
    "a stop id in the middle": ("a", "<|user|>", "</think>", "b", "<|user|>", "c", "<|user|>", "<|user|>"),
    "a stop id in a call": ("</think>", "<tool_call>", "look", "<|user|>", "</tool_call>", "<|user|>"),
    "never closed": ("on and on ",),
    "nothing": (),
    "white space": (" ", "</think>", "\n", "<|user|>"),
    "half characters": (HALF, "</think>", HALF, *CALL, HALF, "<think>", "a", HALF, "<tool_call>", "look", HALF),
    "half a character before a call": (HALF, *CALL, HALF, *CALL, "<|user|>"),
}


@pytest.mark.parametrize("thinking", [ON, OFF], ids=["on", "off"])
@pytest.mark.parametrize("name", TURNS)
def test_every_cut(tokenizer: Tokenizer, name: str, thinking: Thinking) -> None:
    ids = ids_of(tokenizer, TURNS[name])
    check(tokenizer, [[i] for i in ids], thinking)
    for cut in range(len(ids) + 1):
        check(tokenizer, [ids[:cut], [], ids[cut:]], thinking)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(data=st.data(), reasoning=TEXT, content=TEXT, arguments=st.dictionaries(TEXT.map(str.strip), st.integers()))
@example(data=None, reasoning="é" * 30, content="東京" * 20, arguments={"n": 1})
def test_what_render_writes(tokenizer: Tokenizer, data, reasoning: str, content: str, arguments) -> None:
    message = Message(
        role="assistant",
        content=content.strip(),
        reasoning=reasoning.strip(),
        tool_calls=(ToolCall(name="done", arguments=arguments), ToolCall(name="done")),
    )
    user = Message(role="user")
    prompt = render((user,), TOOLS, ON, tokenizer, generation_prompt=True).ids
    sampled = render((user, message), TOOLS, ON, tokenizer).ids[len(prompt) :]
    _, parsed = read(tokenizer, split(data, sampled) if data else [[i] for i in sampled], ON)
    assert parsed == Parsed(message, "")


def test_events_come_as_soon_as_they_are_certain(tokenizer: Tokenizer) -> None:
    parts = [
        ids_of(tokenizer, [piece]) for piece in ("  ", "why", " ", "not", "</think>", "\n", "so", *CALL, "<|user|>")
    ]
    groups, parsed = read(tokenizer, parts, ON)
    call = ToolCall(name="look", arguments={"i": 2})
    told = [(n, event) for n, group in enumerate(groups) for event in group]
    assert told == [
        (1, ReasoningDelta("why")),
        (3, ReasoningDelta(" not")),
        (6, ContentDelta("so")),
        (len(parts) - 2, CallReady(0, call)),
    ]
    assert parsed == Parsed(Message(role="assistant", content="so", reasoning="why not", tool_calls=(call,)), "")


def test_a_character_is_never_sent_half(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    groups, _ = read(tokenizer, [ids[:1], ids[1:]], OFF)
    assert groups[:2] == [[], [ContentDelta("é")]]
    cut, _ = read(tokenizer, [ids[:1], [tokenizer.id("<|user|>")]], OFF)
    assert cut == [[], [], [ContentDelta("\ufffd")]]
    bad, _ = read(tokenizer, [ids[:1], tokenizer.encode("a")], OFF)
    assert bad[:2] == [[], [ContentDelta("\ufffda")]]


def test_a_malformed_call_is_content_when_its_end_is_certain(tokenizer: Tokenizer) -> None:
    parts = [ids_of(tokenizer, [piece]) for piece in ("so ", "<tool_call>", "look", "<think>", "</tool_call>", "x")]
    groups, parsed = read(tokenizer, parts, OFF)
    shown = "<tool_call>look<think></tool_call>"
    assert groups[:6] == [[ContentDelta("so")], [], [], [], [ContentDelta(f" {shown}")], [ContentDelta("x")]]
    assert parsed.message.tool_calls == () and "malformed" in parsed.problem


LONG = 100_000
LONG_TURNS = {
    "white space": (" ",) * LONG,
    "text": ("a", " ") * LONG,
    "an open call": ("<tool_call>", *("a", "é") * LONG),
    "calls in calls": ("<tool_call>",) * LONG,
    "stop ids": ("<|user|>",) * LONG,
}


@pytest.mark.parametrize("name", LONG_TURNS)
def test_work_is_linear(tokenizer: Tokenizer, name: str) -> None:
    """One id at a time; work that grows with the turn at every feed would take many minutes."""
    ids = ids_of(tokenizer, LONG_TURNS[name])
    started = time.process_time()
    read(tokenizer, ([i] for i in ids), OFF)
    assert time.process_time() - started < 60
