import pytest

from arcforge.core.documents import SHARED
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.tasks import Conversation
from arcforge.data.conversations import beyond_topk_share, pack_conversations, samples_of, tokens_of
from arcforge.data.packing import Tokens, pack

TOOL = ToolSpec(name="cat", parameters={"type": "object", "properties": {"path": {"type": "string"}}})


def agentic() -> Conversation:
    return Conversation(
        messages=(
            Message(role="system", content="repair"),
            Message(role="user", content="fix fox"),
            Message(role="assistant", reasoning="look", tool_calls=(ToolCall(name="cat", arguments={"path": "fox"}),)),
            Message(role="tool", content="a + b"),
            Message(role="assistant", reasoning="done now", content="fixed"),
        ),
        tools=(TOOL,),
    )


def two_turns(thinking: Thinking, reasoning: str | None = "hm") -> Conversation:
    return Conversation(
        messages=(
            Message(role="system", content="sys"),
            Message(role="user", content="river"),
            Message(role="assistant", reasoning=reasoning, content="lake"),
            Message(role="user", content="moon"),
            Message(role="assistant", reasoning=reasoning, content="star"),
        ),
        thinking=thinking,
    )


def trained_text(tokens: Tokens, tokenizer) -> str:
    return tokenizer.decode(tokens.ids[tokens.mask].tolist())


def test_loss_is_on_what_the_assistant_writes(tokenizer):
    tokens = tokens_of(agentic(), tokenizer)
    assert trained_text(tokens, tokenizer) == (
        "look</think><tool_call>cat<arg_key>path</arg_key><arg_value>fox</arg_value></tool_call><|observation|>"
        "done now</think>fixed<|user|>"
    )
    (sample,) = samples_of(agentic(), tokenizer)
    assert sample.ids.tolist() == tokens.ids.tolist() and sample.mask.tolist() == tokens.mask.tolist()


def test_erroneous_segment_stays_in_context_and_out_of_the_loss(tokenizer):
    messages = agentic().messages
    wrong = messages[2].model_copy(update={"trained": False})
    conversation = agentic().model_copy(update={"messages": (*messages[:2], wrong, *messages[3:])})
    tokens, whole = tokens_of(conversation, tokenizer), tokens_of(agentic(), tokenizer)
    assert tokens.ids.tolist() == whole.ids.tolist()
    assert trained_text(tokens, tokenizer) == "done now</think>fixed<|user|>"


def test_interleaved_turns_are_trained_once_each_as_they_are_sampled(tokenizer):
    samples = samples_of(two_turns(Thinking()), tokenizer)
    assert [trained_text(s, tokenizer) for s in samples] == ["hm</think>lake<|user|>", "hm</think>star<|user|>"]
    assert tokenizer.decode(samples[1].ids.tolist()).count("hm") == 1, "old reasoning is not in the later context"


@pytest.mark.parametrize(
    "conversation", [two_turns(Thinking(preserved=True)), two_turns(Thinking(enabled=False), reasoning=None)]
)
def test_turns_stay_together_when_no_reasoning_is_dropped(conversation, tokenizer):
    (sample,) = samples_of(conversation, tokenizer)
    text = trained_text(sample, tokenizer)
    assert text.count("<|user|>") == 2 and "lake" in text and "star" in text


def test_nothing_to_train_is_no_sample(tokenizer):
    assert samples_of(Conversation(messages=(Message(role="user", content="x"),)), tokenizer) == []


def test_packed_conversations_are_whole(tokenizer):
    conversations = [agentic(), two_turns(Thinking(preserved=True))] * 5
    samples = [tokens_of(c, tokenizer) for c in conversations]
    rows, left_out = pack_conversations(conversations, tokenizer, 128)
    assert left_out == 0
    found = {
        (*rows.ids[n][rows.document_ids[n] == SHARED], *rows.ids[n][rows.document_ids[n] == d])
        for n in range(len(rows))
        for d in set(rows.document_ids[n])
    }
    assert {tuple(s.ids) for s in samples} <= found
    assert rows.loss_mask.sum() == sum(int(s.mask.sum()) for s in samples)
    shorter, left_out = pack_conversations(conversations, tokenizer, min(map(len, samples)))
    assert left_out == 5 and len(shorter) == 5


def test_share_of_targets_beyond_topk():
    rows = pack([Tokens.of(range(6), [0, 1, 1, 1, 1, 1]), Tokens.of(range(4), [0, 0, 0, 1])], 12, "best_fit")
    # Targets stand after 1, 2, 3, 4, 5 and 3 tokens of their document.
    assert beyond_topk_share(rows, 2) == pytest.approx(4 / 6)
    assert beyond_topk_share(rows, 3) == pytest.approx(2 / 6)
    assert beyond_topk_share(rows, 5) == 0
    assert beyond_topk_share(pack([Tokens.of([1, 2], [0, 0])], 4, "best_fit"), 1) == 0
