"""The saved folder in transformers: the same text ids, and apply_chat_template gives the ids of render()."""

import json
import os
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "description": "größe"}}, "required": ["a"]}
TOOLS = (ToolSpec(name="look", description='see "all"', parameters=SCHEMA), ToolSpec(name="done"))
SYSTEM, USER = (
    Message(role="system", content="be <good> \n"),
    Message(role="user", content=" the wolf & 12 'foxes'\n\n"),
)
CALLS = Message(
    role="assistant",
    content=" so ",
    reasoning=" because\n",
    tool_calls=(
        ToolCall(name="look", arguments={"a": 2, "s": " 'x' ", "l": [1, {"k": "é", "t": True}], "n": None, "f": 0.5}),
        ToolCall(name="done"),
    ),
)
RESULTS = (Message(role="tool", content='{"r": 1}'), Message(role="tool", content=""))
ANSWER = Message(role="assistant", content="ok", reasoning="why")
EMPTY, PLAIN = Message(role="assistant", content="a", reasoning=""), Message(role="assistant", content="b")
CONVERSATIONS = {
    "plain": ((USER,), ()),
    "system": ((SYSTEM, USER, PLAIN), ()),
    "tools": ((SYSTEM, USER, CALLS, *RESULTS), TOOLS),
    "two turns": ((USER, CALLS, *RESULTS, ANSWER, USER, ANSWER), TOOLS),
    "open call": ((USER, CALLS), TOOLS),
    "empty block": ((USER, EMPTY, USER, EMPTY), ()),
    "no user": ((SYSTEM, ANSWER, *RESULTS[:1], ANSWER), ()),
    "late system": ((USER, ANSWER, SYSTEM, *RESULTS, USER), ()),
}


@pytest.fixture(scope="module")
def transformers_tokenizer(tokenizer: Tokenizer, tmp_path_factory) -> Any:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer.save(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "glm_moe_dsa"}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def as_openai(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        fields["reasoning_content"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return fields


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize("thinking", [Thinking(), Thinking(preserved=True), Thinking(enabled=False)], ids=repr)
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_same_ids(tokenizer, transformers_tokenizer, name: str, thinking: Thinking, generation_prompt: bool) -> None:
    messages, tools = CONVERSATIONS[name]
    theirs = transformers_tokenizer.apply_chat_template(
        [as_openai(message) for message in messages],
        tools=[{"type": "function", "function": tool.model_dump()} for tool in tools] or None,
        add_generation_prompt=generation_prompt,
        enable_thinking=thinking.enabled,
        clear_thinking=not thinking.preserved,
        return_dict=True,
    )["input_ids"]
    ours = render(messages, tools, thinking, tokenizer, generation_prompt=generation_prompt).ids
    assert theirs == ours, (transformers_tokenizer.decode(theirs), tokenizer.decode(ours))


def test_defaults_and_text_parts(tokenizer, transformers_tokenizer) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": " you"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "look", "arguments": {}}]},
    ]
    shown = transformers_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "[gMASK]<sop><|user|>hi you<|assistant|></think><tool_call>look</tool_call><|assistant|><think>"


def test_text_and_special_tokens_agree(tokenizer, transformers_tokenizer) -> None:
    text = "the wolf's 12 größte\n\n  things, <b>!</b> 東京"
    assert transformers_tokenizer.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert transformers_tokenizer.decode(tokenizer.encode(text)) == text
    assert transformers_tokenizer.eos_token_id == transformers_tokenizer.pad_token_id == tokenizer.pad_id
    assert len(transformers_tokenizer) == tokenizer.vocab_size
    tags = [tokenizer.id("<|user|>"), tokenizer.id("<think>"), *tokenizer.encode("a")]
    assert transformers_tokenizer.decode(tags, skip_special_tokens=True) == "<think>a"
