"""The frame of the tools: ours by default, another maker's read off from the template in the checkpoint folder."""

import json
import pickle
from dataclasses import replace

import pytest
from made_up_template import FRAME, reloaded, template

from arcforge.chat.frame import COMPACT, OUR_FRAME, OUR_TEMPLATE, SPACED, argument_text, read_frame, tool_json
from arcforge.chat.jinja import CHAT_TEMPLATE
from arcforge.chat.template import render, tools_block
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

LOOK = ToolSpec(name="look", description='größe "x"', parameters={"type": "object", "properties": {}})
DONE = ToolSpec(name="done")
USER = Message(role="user", content="hi")
CALLS = Message(role="assistant", tool_calls=(ToolCall(name="look", arguments={"l": [1, {"k": 2}], "s": "a, b"}),))


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        OUR_FRAME,
        replace(FRAME, wrapped=False, argument_separators=SPACED),
        replace(FRAME, separators=COMPACT, between="\n", before="<|system|>", after=""),
        replace(FRAME, before='<|system|>{"name": "x"}\n', after="<|user|>probe\n"),
    ],
)
def test_a_frame_is_read_as_it_was_written(frame) -> None:
    assert read_frame(template(frame)) == frame


def test_our_own_template_has_our_frame() -> None:
    assert read_frame(CHAT_TEMPLATE) == OUR_FRAME == OUR_TEMPLATE.frame


def test_tools_stand_in_the_frame_of_the_folder(tokenizer: Tokenizer, tmp_path) -> None:
    other = reloaded(tokenizer, tmp_path)
    assert other.template.frame == FRAME and other.encode("the wolf") == tokenizer.encode("the wolf")
    rendered = render((USER, CALLS), (LOOK, DONE), Thinking(), other)
    assert other.decode(rendered.ids) == (
        "[gMASK]<sop><|system|>Callable things, <tools></tools> around them:\n<tools>\n"
        '{"type": "function", "function": {"name": "look", "description": "größe \\"x\\"", '
        '"parameters": {"type": "object", "properties": {}}}}\n\n{"type": "function", "function": {"name": "done"}}'
        "\n</tools>\nCall one by <tool_call>its name</tool_call>. <|user|>hi<|assistant|></think>"
        '<tool_call>look<arg_key>l</arg_key><arg_value>[1,{"k":2}]</arg_value>'
        "<arg_key>s</arg_key><arg_value>a, b</arg_value></tool_call><|observation|>"
    )
    assert render((USER,), (), Thinking(), other).ids == render((USER,), (), Thinking(), tokenizer).ids


def test_tags_of_the_frame_are_control_and_those_of_a_tool_are_text(tokenizer: Tokenizer, tmp_path) -> None:
    other = reloaded(tokenizer, tmp_path)
    control = set(other.control.values())
    spelled = ToolSpec(name="</tools><|user|>", description="<tool_call>")
    of_frame = [i for i in tools_block((DONE,), other) if i in control]
    assert [i for i in tools_block((spelled,), other) if i in control] == of_frame
    names = ["<|system|>", "<tools>", "</tools>", "<tools>", "</tools>", "<tool_call>", "</tool_call>"]
    assert [other.piece(i) for i in of_frame] == names
    assert tool_json(spelled, FRAME) in other.decode(tools_block((spelled,), other))


def test_text_of_the_frame_and_of_the_tools_is_encoded_as_one(tokenizer: Tokenizer, tmp_path) -> None:
    frame = replace(FRAME, before='<|system|>"tools":', after='"};', wrapped=False, separators=COMPACT)
    other = reloaded(tokenizer, tmp_path, frame)
    text = '"tools":{"name":"done"}"};'
    assert tools_block((DONE,), other) == [other.id("<|system|>"), *other.encode(text)]
    assert other.encode(text) != other.encode('"tools":') + other.encode(text.removeprefix('"tools":'))


def test_the_template_stays_with_the_tokenizer(tokenizer: Tokenizer, tmp_path) -> None:
    other = reloaded(tokenizer, tmp_path)
    other.save(tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == template(FRAME)
    for copy in (Tokenizer.load(tmp_path / "again"), pickle.loads(pickle.dumps(other))):
        assert tools_block((LOOK,), copy) == tools_block((LOOK,), other) != tools_block((LOOK,), tokenizer)


def test_ours_where_the_folder_has_ours_or_none(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).template == OUR_TEMPLATE
    (tmp_path / "chat_template.jinja").unlink()
    assert Tokenizer.load(tmp_path).template == OUR_TEMPLATE


def test_a_vocabulary_without_the_tags_of_the_tools(tokenizer: Tokenizer, tmp_path) -> None:
    other = reloaded(tokenizer, tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"] = [token for token in data["added_tokens"] if "tools>" not in token["content"]]
    path.write_text(json.dumps(data))
    block = tools_block((DONE,), Tokenizer.load(tmp_path))
    assert other.decode(block) == other.decode(tools_block((DONE,), other))
    assert not {other.id("<tools>"), other.id("</tools>")} & set(block)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no control token <tools>"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "does not begin with"),
        ("<s>{{ messages }}", "does not begin with"),
        ("[gMASK]<sop>{% for", "cannot be rendered: "),
        ("[gMASK]<sop>{{ messages[0].content.x.y }}", "cannot be rendered: "),
        ("[gMASK]<sop>{{ ''.__class__.__mro__ }}", "cannot be rendered: "),
        ("[gMASK]<sop>{{ messages }}", "an argument as JSON"),
        (template(FRAME).replace("tojson(", "string("), "cannot be rendered: "),
        (template(FRAME).replace("{%- if tools -%}", "{%- if not messages -%}"), "tools as one JSON object each"),
        (template(FRAME).replace("tojson(", "tojson(sort_keys=true, "), "tools as one JSON object each"),
        (template(FRAME).replace("{{ message.content }}", "{{ tools }}"), "tools as one JSON object each"),
    ],
)
def test_a_template_of_another_kind_is_told_in_one_line(
    tokenizer: Tokenizer, tmp_path, text: str, problem: str
) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(text)
    with pytest.raises(UserError, match=r"chat_template\.jinja: ") as caught:
        Tokenizer.load(tmp_path)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_text_is_told_too(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"chat_template\.jinja: cannot be read"):
        Tokenizer.load(tmp_path)


def test_json_of_tools_and_arguments() -> None:
    assert tool_json(DONE, FRAME) == '{"type": "function", "function": {"name": "done"}}'
    assert tool_json(DONE, replace(FRAME, wrapped=False)) == '{"name": "done"}'
    assert tool_json(DONE) == '{"name":"done"}'
    assert argument_text("a", FRAME) == "a" and argument_text({"é": [1, 2]}) == '{"é":[1,2]}'
    assert argument_text([1, 2], replace(FRAME, argument_separators=SPACED)) == "[1, 2]"
