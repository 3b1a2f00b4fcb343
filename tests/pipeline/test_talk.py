"""The conversation of `arcforge chat`, in this process, with a real engine on a checkpoint that says what it is told."""

import io

import pytest
from parrot import parrot

from arcforge.core.errors import UserError
from arcforge.core.messages import Message, ToolCall
from arcforge.pipeline.talk import DIM, PLAIN, Chat, checkpoint_of, load, printable


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(parrot(tmp_path_factory.mktemp("parrot") / "checkpoint", "<think>hm</think>né\x1b!<|user|>"))


def talk(loaded, *lines, colour=False):
    out = io.StringIO()
    chat = Chat(*loaded, out, colour, temperature=0.6)
    went_on = [chat.line(line) for line in lines]
    return chat, out.getvalue(), went_on


def test_thinking_is_dimmed_and_an_answer_cannot_steer_the_terminal(loaded):
    _, text, _ = talk(loaded, "/think on", "hello", colour=True)
    assert text == f"{DIM}hm{PLAIN}\nné\ufffd!\n"


def test_a_tool_call_is_shown_whole(tmp_path):
    folder = parrot(tmp_path / "checkpoint", "</think>so<tool_call>lk</tool_call><|observation|>")
    chat, text, _ = talk(load(folder), "hello")
    assert text == "solk {}\n"
    assert chat.messages[-1] == Message(role="assistant", content="so", tool_calls=(ToolCall(name="lk"),))


def test_the_conversation_is_kept_until_it_is_reset(loaded):
    chat, text, _ = talk(loaded, "/system be kind", "hello", "again")
    answer = Message(role="assistant", content="né\x1b!")
    assert [m.role for m in chat.messages] == ["user", "assistant"] * 2 and chat.messages[1] == answer
    assert text == "(a new conversation)\nné\ufffd!\nné\ufffd!\n" and chat.system == "be kind"
    assert chat.line("/reset") and not chat.messages


def test_the_worlds_set_system_prompt_and_thinking(loaded):
    chat, _, _ = talk(loaded, "/reason")
    assert chat.thinking.enabled and chat.system.startswith("Solve the problem")
    chat.line("/chat")
    assert not chat.thinking.enabled and chat.system.startswith("You are a kind")


def test_exit_ends_and_other_commands_help(loaded):
    _, text, went_on = talk(loaded, "", "/help", "/think maybe", "/exit")
    assert went_on == [True, True, True, False] and text.count("/system TEXT") == 2


def test_a_conversation_that_is_too_long_says_so(loaded):
    chat, text, _ = talk(loaded, "word " * 500)
    assert text == "The conversation is longer than this model can read; /reset begins another.\n" and not chat.messages
    assert chat.line("hello") and len(chat.messages) == 2


def test_printable_keeps_lines_and_drops_controls():
    assert printable("a\n\tb\r\x07é") == "a\n\tb\ufffd\ufffdé"


def test_which_checkpoint(tmp_path):
    for name in ("01-tokenizer", "05-sft", "07-agentic_rl", "09-distill"):
        (tmp_path / "stages" / name / "checkpoint").mkdir(parents=True)
        if name != "01-tokenizer":
            (tmp_path / "stages" / name / "checkpoint" / "model-00001-of-00001.safetensors").touch()
    assert checkpoint_of(tmp_path).parent.name == "09-distill"
    assert checkpoint_of(tmp_path, preferred="agentic_rl").parent.name == "07-agentic_rl"
    assert checkpoint_of(tmp_path, "sft", preferred="agentic_rl").parent.name == "05-sft"
    with pytest.raises(UserError, match="no stage 'general_rl' here"):
        checkpoint_of(tmp_path, "general_rl")
    with pytest.raises(UserError, match="tokenizer has no checkpoint yet"):
        checkpoint_of(tmp_path, "tokenizer")
    with pytest.raises(UserError, match="neither a run folder nor a checkpoint folder"):
        checkpoint_of(tmp_path / "stages")
