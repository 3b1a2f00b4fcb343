"""The ids of GLM-5's renderer in the package `renderers`, on our tokenizer with the frame that it puts around tools.

Equal for everything but this, each with its own test below:
1. Text that spells control tokens is text with us and control with them.
2. `content: null` is nothing with us and the word None with them.
3. A reasoning block that is empty ("" and not None) is kept as <think></think> with us; they drop it unless white space
   stands in it.
4. Without generation prompt, we close a final assistant message by the stop token that the model ends it with.
"""

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_template import reloaded

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from arcforge.chat.frame import SPACED, ToolsFrame, tool_json
from arcforge.chat.template import render
from arcforge.chat.tokenizer import CONTROL_TOKENS, Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

PROBES = (ToolSpec(name="probe one"), ToolSpec(name="probe two"))
USER = Message(role="user", content="hi")
MODES = [Thinking(enabled=enabled, preserved=preserved) for enabled in (True, False) for preserved in (False, True)]


class Theirs:
    """Their renderer, one per thinking mode."""

    def __init__(self, folder) -> None:
        transformers, renderers = pytest.importorskip("transformers"), pytest.importorskip("renderers")
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        self._renderers = {
            mode: renderers.GLM5Renderer(
                tokenizer,
                renderers.GLM5RendererConfig(enable_thinking=mode.enabled, clear_thinking=not mode.preserved),
            )
            for mode in MODES
        }

    def ids(self, messages, tools, mode: Thinking, generation_prompt: bool = False) -> list[int]:
        return self._renderers[mode].render_ids(
            [message if isinstance(message, dict) else as_openai(message) for message in messages],
            tools=[as_tool(tool) for tool in tools],
            add_generation_prompt=generation_prompt,
        )


def as_tool(tool: ToolSpec) -> dict[str, Any]:
    fields = {name: value for name, value in tool.model_dump().items() if value or name == "name"}
    return {"type": "function", "function": fields}


def as_openai(message: Message) -> dict[str, Any]:
    """Arguments are a JSON string; an empty reasoning block is written as white space (difference 3)."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        fields["reasoning_content"] = message.reasoning or " "
    if message.tool_calls:
        called = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in message.tool_calls]
        fields["tool_calls"] = [{"id": f"c{i}", "type": "function", "function": call} for i, call in enumerate(called)]
    return fields


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory) -> Theirs:
    folder = tmp_path_factory.mktemp("theirs")
    tokenizer.save(folder)
    return Theirs(folder)


@pytest.fixture(scope="module")
def ours(tokenizer: Tokenizer, theirs: Theirs, tmp_path_factory) -> Tokenizer:
    """Our tokenizer, from a folder whose template has the frame that they put around two known tools."""
    frame = their_frame(tokenizer, theirs)
    loaded = reloaded(tokenizer, tmp_path_factory.mktemp("ours"), frame)
    assert loaded.template.frame == frame
    return loaded


def their_frame(tokenizer: Tokenizer, theirs: Theirs) -> ToolsFrame:
    form = ToolsFrame(wrapped=True, separators=SPACED, argument_separators=SPACED)
    shown, bare = (tokenizer.decode(theirs.ids((USER,), tools, Thinking())) for tools in (PROBES, ()))
    block = shown.removeprefix("[gMASK]<sop>").removesuffix(bare.removeprefix("[gMASK]<sop>"))
    before, _, behind = block.partition(tool_json(PROBES[0], form))
    between, found, after = behind.partition(tool_json(PROBES[1], form))
    assert found and before.startswith("<|system|>") and "<tools>" in before
    return replace(form, before=before, between=between, after=after)


def closing(messages, tokenizer: Tokenizer) -> list[int]:
    """Difference 4."""
    if not messages or messages[-1].role != "assistant":
        return []
    return [tokenizer.id("<|observation|>" if messages[-1].tool_calls else "<|user|>")]


def spells_no_control(text: str) -> bool:
    return not any(name in text for name in CONTROL_TOKENS)


SPACE = st.sampled_from(["", " ", "\n\n", "\t", "\u3000", " \r\n"])
WORDS = st.sampled_from(
    [
        "the wolf",
        "größe",
        "東京 12",
        '{"a": 1}',
        "🦊",
        "<b>&amp;</b>",
        "None",
        "null",
        "nothink",
        "/nothink",
        "e\u0301",
        "",
    ]
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(spells_no_control)
TEXT = st.tuples(SPACE, WORDS | ANY, SPACE).map("".join)
NAME = st.sampled_from(["look", "done", "größe_messen", "a.b-c"]) | ANY
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CALL = st.builds(ToolCall, name=NAME, arguments=st.dictionaries(NAME, JSON, max_size=3))
ASSISTANT = st.builds(
    Message,
    role=st.just("assistant"),
    content=TEXT,
    reasoning=st.none() | st.just("") | TEXT,
    tool_calls=st.lists(CALL, max_size=3).map(tuple),
)
OTHER = st.builds(Message, role=st.sampled_from(["system", "user", "tool"]), content=TEXT)
ROUND = st.tuples(ASSISTANT, st.lists(st.builds(Message, role=st.just("tool"), content=TEXT), max_size=3))
TASK = st.tuples(st.just(USER) | OTHER, st.lists(ROUND, max_size=3)).map(
    lambda parts: [parts[0], *(message for answer, results in parts[1] for message in (answer, *results))]
)
CONVERSATION = st.lists(TASK, min_size=1, max_size=3).map(lambda tasks: [m for task in tasks for m in task])
SCHEMA = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAME, st.dictionaries(NAME, JSON))}
)
TOOL = st.builds(ToolSpec, name=NAME, description=TEXT, parameters=st.just({}) | SCHEMA)
TOOLS = st.lists(TOOL, max_size=3)
SLOW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(messages=CONVERSATION, tools=TOOLS, mode=st.sampled_from(MODES), generation_prompt=st.booleans())
def test_same_ids(ours: Tokenizer, theirs: Theirs, messages, tools, mode: Thinking, generation_prompt: bool) -> None:
    mine = render(messages, tools, mode, ours, generation_prompt=generation_prompt).ids
    end = [] if generation_prompt else closing(messages, ours)
    assert mine == theirs.ids(messages, tools, mode, generation_prompt) + end, ours.decode(mine)


ATTACK = st.lists(st.sampled_from([*CONTROL_TOKENS, "obey", " ", "\n"]), min_size=1, max_size=6).map("".join)


@SLOW
@given(attack=ATTACK, mode=st.sampled_from(MODES))
def test_spelled_control_is_text_here_and_control_there(ours, theirs, attack: str, mode: Thinking) -> None:
    """Difference 1: both read the same as text, but there what a stranger wrote counts as the template's own."""
    control = set(ours.control.values())

    def conversation(text: str) -> tuple[list[Message], list[ToolSpec]]:
        call = ToolCall(name=text, arguments={text: text, "list": [text]})
        written = [Message(role=role, content=text) for role in ("system", "user", "tool")]
        answer = Message(role="assistant", content=text, reasoning=text, tool_calls=(call,))
        return [*written[:2], answer, written[2]], [ToolSpec(name=text, description=text)]

    def skeleton(ids: list[int]) -> list[int]:
        return [i for i in ids if i in control]

    mine, others = render(*conversation(attack), mode, ours).ids, theirs.ids(*conversation(attack), mode)
    assert ours.decode(mine) == ours.decode(others)
    assert (
        skeleton(mine)
        == skeleton(render(*conversation("x"), mode, ours).ids)
        == skeleton(theirs.ids(*conversation("x"), mode))
    )
    spelled = not spells_no_control(attack)
    assert (mine != others) == (skeleton(mine) != skeleton(others)) == spelled


def test_spelled_end_of_thinking_in_content_is_content_here_and_splits_it_there(ours, theirs) -> None:
    """Difference 1 again: without reasoning of its own, they take what stands before the tag for it."""
    answer = Message(role="assistant", content="a</think>b")
    shown = ours.decode(theirs.ids((USER, answer), (), Thinking()))
    assert shown == "[gMASK]<sop><|user|>hi<|assistant|><think>a</think>b"
    mine = render((USER, answer), (), Thinking(), ours).ids
    assert mine == [
        *(ours.id(name) for name in ("[gMASK]", "<sop>", "<|user|>")),
        *ours.encode("hi"),
        *(ours.id(name) for name in ("<|assistant|>", "</think>")),
        *ours.encode("a</think>b"),
        ours.id("<|user|>"),
    ]


@pytest.mark.parametrize("role, tail", [("user", ""), ("system", ""), ("tool", "</tool_response>"), ("assistant", "")])
def test_null_content_is_nothing_here_and_a_word_there(ours, theirs, role: str, tail: str) -> None:
    """Difference 2. Requests with null are read as "", for which both agree."""
    null, empty = ({"role": role, "content": content} for content in (None, ""))
    nothing = render((USER, Message(role=role)), (), Thinking(), ours, generation_prompt=True).ids
    assert nothing == theirs.ids((USER, empty), (), Thinking(), True)
    start = ours.decode(nothing).removesuffix(f"{tail}<|assistant|><think>")
    assert ours.decode(theirs.ids((USER, null), (), Thinking(), True)) == f"{start}None{tail}<|assistant|><think>"


def test_an_empty_block_stays_here_and_goes_there(ours, theirs) -> None:
    """Difference 3: it was sampled, and stays as it was sampled."""
    fields = {"role": "assistant", "content": "a"}
    empty, absent = (render((USER, Message(**fields, reasoning=r)), (), Thinking(), ours).ids[:-1] for r in ("", None))
    asked = [theirs.ids((USER, {**fields, "reasoning_content": text}), (), Thinking()) for text in (" ", "", None)]
    assert asked == [empty, absent, absent]
    assert ours.decode(empty).endswith("<think></think>a") and ours.decode(absent).endswith("<|assistant|></think>a")
