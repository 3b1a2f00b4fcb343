"""The gateway over a scripted token engine: what it records is exactly what the engine saw and sampled."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.chat.template import render
from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.scripted import ScriptedTokenEngine
from arcforge.core.errors import EngineError, GatewayError
from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec
from arcforge.core.protocols import CompletionRequest
from arcforge.core.trajectory import TokenSpan
from arcforge.rl.forks import FORK_REASONS, contexts
from arcforge.rl.gateway import Gateway

TOOLS = (ToolSpec(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}}),)
SYSTEM = Message(role="system", content="be brief")
USER = Message(role="user", content="what is two and three")
TOKENIZER = Tokenizer.train(["be brief what is two and three the answer is now add think of it"] * 4, 320)


def turn(*parts):
    """Ids from control tokens by name and text."""
    ids = []
    for part in parts:
        ids += [TOKENIZER.id(part)] if part in TOKENIZER.control else TOKENIZER.encode(part)
    return ids


CALL = turn("think of it", "</think>", "<tool_call>", "add", "<arg_key>", "a", "</arg_key>", "<arg_value>", "2")
CALL += turn("</arg_value>", "</tool_call>", "<|observation|>")
ANSWER = turn("it is", "</think>", "the answer is 5", "<|user|>")


class Talk:
    """An agent's side: keeps messages, sends them all each time. Engine turns are played in order."""

    def __init__(self, turns, max_context=1000, thinking=Thinking(), tools=TOOLS, max_tokens=100):  # noqa: B008
        self.turns = list(turns)
        self.engine = ScriptedTokenEngine(lambda prompt, sampling: self.turns.pop(0), version=4)
        self.events = []
        self.gateway = Gateway(self.engine, TOKENIZER, max_context, observe=self.events.append)
        self.session = self.gateway.open("r0")
        self.messages, self.thinking, self.tools, self.max_tokens = [SYSTEM, USER], thinking, tools, max_tokens

    def send(self, *new, messages=None, **changes):
        self.messages = [*(self.messages if messages is None else messages), *new]
        values = {"tools": self.tools, "thinking": self.thinking, "sampling": Sampling(max_tokens=self.max_tokens)}
        request = CompletionRequest(messages=tuple(self.messages), session="r0", **{**values, **changes})
        answer = asyncio.run(self.gateway.complete(request))
        self.messages.append(answer.message)
        return answer

    def close(self):
        return self.gateway.close("r0")


def flat(spans):
    return [i for span in spans for i in span.ids]


def tool(text):
    return Message(role="tool", content=text)


def test_a_conversation_is_one_append_only_record_equal_to_what_the_engine_saw():
    talk = Talk([CALL, CALL, ANSWER])
    first = talk.send()
    assert first.finish_reason == "tool_calls" and first.message.tool_calls[0].arguments == {"a": 2}
    talk.send(tool("4"))
    last = talk.send(tool("5"))
    assert last.finish_reason == "stop" and last.message.content == "the answer is 5"
    assert last.prompt_tokens == len(talk.engine.prompts[2]) and last.completion_tokens == len(ANSWER)
    (spans,) = talk.close()
    assert flat(spans[:5]) == talk.engine.prompts[2] and flat(spans) == talk.engine.prompts[2] + ANSWER
    for prompt, sampled in zip(talk.engine.prompts, [CALL, CALL, ANSWER]):
        assert flat(spans)[: len(prompt) + len(sampled)] == prompt + sampled
    model = [span for span in spans if span.source == "model"]
    assert [span.ids for span in model] == [CALL, CALL, ANSWER]
    assert all(span.trained and span.version == 4 and len(span.logprobs) == len(span.ids) for span in model)
    assert all(span.mask_reason == "prompt" for span in spans if span.source == "prompt")
    assert flat(spans) == render(talk.messages, TOOLS, Thinking(), TOKENIZER).ids
    assert not talk.events


def test_the_role_token_the_model_sampled_opens_the_next_message_once():
    talk = Talk([CALL, turn("</think>", "no", "<|endoftext|>"), ANSWER], thinking=Thinking(preserved=True))
    talk.send()
    talk.send(tool("4"))
    talk.send(Message(role="user", content="now"))
    (spans,) = talk.close()
    observation, user = TOKENIZER.id("<|observation|>"), TOKENIZER.id("<|user|>")
    assert spans[1].ids[-1] == observation and observation not in spans[2].ids
    assert spans[4].ids[0] == user  # <|endoftext|> opens nothing, so the role token is written


def test_ids_that_no_text_would_give_back_survive():
    """Sampled pieces that encoding would merge stay apart: nothing is tokenised twice."""
    letters = [i for letter in "the answer" for i in TOKENIZER.encode(letter)]
    assert letters != TOKENIZER.encode("the answer")
    talk = Talk([[TOKENIZER.id("</think>"), *letters, TOKENIZER.id("<|observation|>")], ANSWER])
    talk.send()
    talk.send(tool("x"))
    assert letters == talk.engine.prompts[1][len(talk.engine.prompts[0]) + 1 :][: len(letters)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: [*m[:2], m[2].model_copy(update={"content": "edited"}), *m[3:]], "drift"),
        (lambda m: [*m[:1], m[1].model_copy(update={"content": "edited"}), *m[2:]], "drift"),
        (lambda m: [*m[:2], *m[4:]], "context"),
        (lambda m: [*m[:3], tool("[left out]"), *m[4:]], "context"),
        (lambda m: m[:2], "context"),
        (lambda m: [*m, Message(role="assistant", content="note"), tool("x")], "inserted"),
    ],
)
def test_a_history_that_differs_forks_with_its_reason(change, reason):
    talk = Talk([CALL, CALL, ANSWER])
    talk.send()
    talk.send(tool("4"))
    history = change([*talk.messages, tool("5")])
    talk.send(messages=history)
    kept, fork = talk.close()
    assert fork[0].mask_reason == reason and reason in FORK_REASONS and fork[0].source == "prompt"
    assert flat(fork) == render(history, TOOLS, Thinking(), TOKENIZER, generation_prompt=True).ids + ANSWER
    assert [span.ids for span in kept if span.source == "model"] == [CALL, CALL]
    assert [span.ids for span in fork if span.source == "model"] == [ANSWER]
    assert [event["reason"] for event in talk.events] == [reason]
    assert contexts([*kept, *fork]) == [kept, fork]


def test_ids_of_calls_and_loss_marks_are_not_history():
    talk = Talk([CALL, ANSWER])
    talk.send()
    call = talk.messages[2].tool_calls[0].model_copy(update={"id": "call_7"})
    talk.messages[2] = talk.messages[2].model_copy(update={"tool_calls": (call,), "trained": False})
    talk.send(Message(role="tool", content="4", tool_call_id="call_7"))
    (spans,) = talk.close()
    assert [(s.trained, s.mask_reason) for s in spans if s.source == "model"] == [(False, "error"), (True, "")]


@pytest.mark.parametrize("kept", [None, ""])
def test_reasoning_that_is_not_sent_back_stays_in_the_record(kept):
    talk = Talk([CALL, CALL, ANSWER, ANSWER])
    talk.send()
    first, talk.messages[2] = talk.messages[2], talk.messages[2].model_copy(update={"reasoning": None})
    talk.send(tool("4"))
    talk.messages[2] = first  # sent after all
    talk.send(tool("5"))
    assert talk.engine.prompts[2][: len(talk.engine.prompts[1])] == talk.engine.prompts[1]
    forgetful = [m.model_copy(update={"reasoning": kept}) if m.role == "assistant" else m for m in talk.messages]
    talk.send(Message(role="user", content="now"), messages=forgetful)
    first_fork, second = talk.close()
    assert flat(first_fork) == talk.engine.prompts[2] + ANSWER
    assert second[0].mask_reason == "thinking", "the record still knows what a user turn strips"


def test_other_reasoning_than_the_model_s_is_drift():
    talk = Talk([CALL, ANSWER])
    talk.send()
    talk.messages[2] = talk.messages[2].model_copy(update={"reasoning": "think of the answer"})
    talk.send(tool("4"))
    assert talk.close()[1][0].mask_reason == "drift"


@pytest.mark.parametrize(
    ("arguments", "forks"), [({"a": 2, "b": {"c": [1.0, 2]}}, 1), ({"a": 3, "b": {"c": [1, 2]}}, 2), ({"a": True}, 2)]
)
def test_arguments_in_another_order_or_with_whole_numbers_written_otherwise_are_the_same(arguments, forks):
    """As JavaScript sends them back."""
    calling = turn("</think>", "<tool_call>", "add", "<arg_key>", "b", "</arg_key>", "<arg_value>", '{"c": [1, 2.0]}')
    calling += turn("</arg_value>", "<arg_key>", "a", "</arg_key>", "<arg_value>", "2", "</arg_value>", "</tool_call>")
    talk = Talk([[*calling, TOKENIZER.id("<|observation|>")], ANSWER])
    talk.send()
    (call,) = talk.messages[2].tool_calls
    assert list(call.arguments) == ["b", "a"]
    call = call.model_copy(update={"arguments": arguments})
    talk.messages[2] = talk.messages[2].model_copy(update={"tool_calls": (call,)})
    talk.send(tool("4"))
    assert len(talk.close()) == forks


def test_a_new_user_turn_strips_reasoning_by_a_fork_unless_it_is_preserved():
    for preserved in (False, True):
        talk = Talk([ANSWER, ANSWER], thinking=Thinking(preserved=preserved))
        talk.send()
        talk.send(Message(role="user", content="now"))
        record = talk.close()
        assert len(record) == (1 if preserved else 2)
        if not preserved:
            assert record[1][0].mask_reason == "thinking"
            assert TOKENIZER.id("<think>") not in record[1][0].ids[:-1]


def test_turn_level_thinking_switches_without_a_fork():
    talk = Talk([CALL, turn("the answer", "<|user|>")])
    talk.send()
    answer = talk.send(tool("4"), thinking=Thinking(enabled=False))
    assert answer.message.reasoning is None and answer.message.content == "the answer"
    assert len(talk.close()) == 1


def test_an_agent_that_returns_to_an_earlier_branch_continues_it():
    talk = Talk([CALL, ANSWER, ANSWER])
    talk.send()
    main = talk.messages
    talk.send(messages=[SYSTEM, Message(role="user", content="think of it")])
    talk.send(tool("4"), messages=main)
    first, second = talk.close()
    assert [span.source for span in first] == ["prompt", "model"] * 2 and len(second) == 2


def test_changed_tools_fork():
    talk = Talk([CALL, ANSWER])
    talk.send()
    talk.send(tool("4"), tools=())
    assert talk.close()[1][0].mask_reason == "tools"


def test_malformed_and_truncated_turns_are_named_and_kept_as_sampled():
    broken = turn("</think>", "<tool_call>", "add", "<arg_key>", "a", "<|observation|>")
    talk = Talk([broken, turn("think of it and think"), ANSWER], max_tokens=len(broken))
    answer = talk.send()
    assert answer.finish_reason == "malformed" and "add" in answer.problem
    talk.turns[0] *= 9
    cut = talk.send(tool("what"))
    assert cut.finish_reason == "length" and cut.completion_tokens == len(broken)
    talk.max_tokens = 100
    talk.send(tool("go on"))
    (spans,) = talk.close()
    assert spans[1].ids == broken and spans[1].trained
    assert spans[4].ids[0] == TOKENIZER.id("</think>")  # closes the cut reasoning, outside the loss


def test_a_full_context_ends_the_turn_without_an_error():
    talk = Talk([CALL, ANSWER], max_context=10_000)
    talk.send()
    size = len(talk.engine.prompts[0]) + len(CALL)
    talk.gateway = Gateway(talk.engine, TOKENIZER, max_context=size + 3)
    talk.gateway.open("r0")
    talk.turns = [CALL, ANSWER]
    talk.messages = [SYSTEM, USER]
    talk.send()
    answer = talk.send(tool("4 and 5 and three"))
    assert answer.finish_reason == "length" and answer.message == Message(role="assistant") and "full" in answer.problem
    (spans,) = talk.close()
    assert len(flat(spans)) == size and talk.turns == [ANSWER]


def test_max_tokens_is_capped_by_the_room_left():
    talk = Talk([ANSWER])
    room = len(render([SYSTEM, USER], TOOLS, Thinking(), TOKENIZER, generation_prompt=True).ids) + 3
    talk.gateway = Gateway(talk.engine, TOKENIZER, max_context=room)
    talk.gateway.open("r0")
    assert talk.send().finish_reason == "length" and len(flat(talk.close()[0])) == room


def test_a_failed_call_leaves_the_record_as_it_was_and_can_be_repeated():
    def fails_once(prompt, sampling):
        if not failures:
            failures.append(1)
            raise EngineError("connection reset")
        return ANSWER

    failures = []
    talk = Talk([])
    talk.engine = ScriptedTokenEngine(fails_once)
    talk.gateway = Gateway(talk.engine, TOKENIZER, 1000)
    talk.gateway.open("r0")
    with pytest.raises(EngineError, match="connection reset"):
        talk.send()
    assert talk.send(messages=[SYSTEM, USER]).message.content == "the answer is 5"
    assert len(talk.close()) == 1


def test_aborts_and_silence_are_engine_errors():
    class Aborting:
        async def generate(self, prompt_ids, sampling, session=""):
            return [TokenSpan(ids=[1], source="model", logprobs=[0.0], version=1)], "abort"

    class Silent:
        async def generate(self, prompt_ids, sampling, session=""):
            await asyncio.sleep(60)

    for engine, message in ((Aborting(), "aborted"), (Silent(), "no answer within 0.05 s")):
        gateway = Gateway(engine, TOKENIZER, 1000, timeout=0.05)
        gateway.open("r")
        with pytest.raises(EngineError, match=message):
            asyncio.run(gateway.complete(CompletionRequest(messages=(USER,), session="r")))
        assert gateway.close("r") == []


def test_spans_keep_the_versions_of_a_turn_that_saw_new_weights():
    spans = [
        TokenSpan(ids=ANSWER[:3], source="model", logprobs=[-0.1] * 3, version=1),
        TokenSpan(ids=ANSWER[3:], source="model", logprobs=[-0.2] * (len(ANSWER) - 3), version=2),
    ]
    talk = Talk([])
    talk.turns = [spans]
    talk.send()
    (record,) = talk.close()
    assert [(s.version, s.ids, s.logprobs[0]) for s in record[1:]] == [(1, ANSWER[:3], -0.1), (2, ANSWER[3:], -0.2)]


def test_sessions_are_opened_once_and_closed_once():
    gateway = Gateway(ScriptedTokenEngine(lambda p, s: ANSWER), TOKENIZER, 1000)
    gateway.open("a")
    with pytest.raises(GatewayError, match="already open"):
        gateway.open("a")
    assert gateway.close("a") == []
    with pytest.raises(GatewayError, match="not open"):
        gateway.close("a")
    with pytest.raises(GatewayError, match="not open"):
        asyncio.run(gateway.complete(CompletionRequest(messages=(USER,), session="a")))


def test_a_request_that_asks_nothing_new_is_refused():
    talk = Talk([ANSWER, ANSWER])
    talk.send()
    with pytest.raises(GatewayError, match="answer already given"):
        talk.send()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), min_size=1, max_size=12), st.text(max_size=20)),
        max_size=5,
    )
)
def test_whatever_is_sampled_the_record_is_what_the_engine_saw(script):
    """Any ids, well-formed or not: prompts only ever grow by the sampled ids and what follows them."""
    talk = Talk([ids for ids, _ in script])
    for number, (_, text) in enumerate(script):
        talk.send(*([tool(text)] if number else []))
        if number:
            before = talk.engine.prompts[number - 1] + script[number - 1][0]
            assert talk.engine.prompts[number][: len(before)] == before
    record = talk.close()
    assert len(record) == (1 if script else 0)
    if script:
        assert flat(record[0]) == talk.engine.prompts[-1] + script[-1][0]
