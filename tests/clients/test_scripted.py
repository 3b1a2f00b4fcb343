"""Scripts: per session, ending in an error, and token engines that obey the sampling limits."""

import asyncio

import pytest

from arcforge.clients.scripted import ScriptedCompleter, ScriptedTokenEngine
from arcforge.core.errors import EngineError, RolloutTimeout
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.protocols import Completer, Completion, CompletionRequest, TokenEngine
from arcforge.core.trajectory import TokenSpan

HI = Message(role="user", content="hi")
ONE, CALL = (
    Message(role="assistant", content="one"),
    Message(role="assistant", tool_calls=(ToolCall(name="look"),)),
)


def ask(completer: Completer, session: str = "") -> Completion:
    return asyncio.run(completer.complete(CompletionRequest(messages=(HI,), session=session)))


def test_a_list_is_played_in_every_session() -> None:
    script = ScriptedCompleter([ONE, CALL])
    assert isinstance(script, Completer)
    assert [ask(script, s).message for s in ("a", "b", "a", "b")] == [ONE, ONE, CALL, CALL]
    assert [request.session for request in script.requests] == ["a", "b", "a", "b"]
    with pytest.raises(EngineError, match="ends after 2 answers"):
        ask(script, "a")


def test_finish_reasons_completions_and_errors() -> None:
    cut = Completion(message=ONE, finish_reason="length", prompt_tokens=3)
    script = ScriptedCompleter([ONE, CALL, cut, RolloutTimeout("slow")])
    assert [ask(script).finish_reason for _ in range(2)] == ["stop", "tool_calls"]
    assert ask(script) == cut
    with pytest.raises(RolloutTimeout, match="slow"):
        ask(script)


def test_a_function_sees_the_request() -> None:
    script = ScriptedCompleter(lambda request: Message(role="assistant", content=request.messages[-1].content * 2))
    assert ask(script).message.content == "hihi"


def generate(engine: TokenEngine, **options):
    return asyncio.run(engine.generate([1, 2], Sampling(**options), "s"))


def test_token_engine() -> None:
    engine = ScriptedTokenEngine(lambda prompt_ids, sampling: [*prompt_ids, 9], version=3)
    assert isinstance(engine, TokenEngine)
    spans, finish = generate(engine, stop_ids=(9,))
    assert (finish, engine.prompts) == ("stop", [[1, 2]])
    assert spans == [TokenSpan(ids=[1, 2, 9], source="model", logprobs=[0.0] * 3, version=3)]
    assert generate(engine, stop_ids=(9,), max_tokens=2)[0][0].ids == [1, 2]
    assert generate(engine, stop_ids=(9,), max_tokens=2)[1] == "length"


def test_token_engine_with_spans_and_scores() -> None:
    given = [TokenSpan(ids=[5, 6], source="model", logprobs=[-1.0, -2.0], version=v) for v in (1, 2)]
    engine = ScriptedTokenEngine(lambda prompt_ids, sampling: given, score_fn=lambda ids: [-0.5] * (len(ids) - 1))
    spans, _ = generate(engine, max_tokens=3)
    assert [(span.ids, span.logprobs, span.version) for span in spans] == [([5, 6], [-1.0, -2.0], 1), ([5], [-1.0], 2)]
    assert given[1].ids == [5, 6]
    assert asyncio.run(engine.score([1, 2, 3])) == [-0.5, -0.5]


def test_a_script_without_an_answer_is_an_engine_error() -> None:
    engine = ScriptedTokenEngine(lambda prompt_ids, sampling: [])
    with pytest.raises(EngineError, match="no token"):
        generate(engine)
    with pytest.raises(EngineError, match="does not score"):
        asyncio.run(engine.score([1]))
