"""Context policies on hand-made histories, and their events."""

import asyncio

import pytest

from arcforge.agents.context import OMITTED, applied
from arcforge.agents.policies import POLICIES, DiscardAll, Hierarchical, KeepAll, KeepRecent, Summary, policy
from arcforge.agents.summaries import AFTER, BEFORE, CUT, NO_NOTES, summary_request
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import Completion

OPENING = [Message(role="system", content="s"), Message(role="user", content="question")]


def turn(*numbers):
    calls = tuple(ToolCall(name="open", arguments={"n": str(number)}, id=str(number)) for number in numbers)
    thought = Message(role="assistant", reasoning=f"think {numbers[0]}", tool_calls=calls)
    return [thought, *(Message(role="tool", content=f"result {n}", tool_call_id=str(n)) for n in numbers)]


def history(turns):
    return [*OPENING, *(message for number in range(turns) for message in turn(number))]


def results(messages):
    return [message.content for message in messages if message.role == "tool"]


def note(text, reason="stop", **tokens):
    return Completion(message=Message(role="assistant", content=text), finish_reason=reason, **tokens)


def ask(policy, messages, tokens):
    async def work():
        await policy.prepare(messages, tokens)
        return policy.view(messages, tokens)

    return asyncio.run(work())


def test_the_omission_is_the_literal_string():
    assert OMITTED == "Tool result is omitted to save tokens."


def test_keep_all():
    keep = KeepAll()
    assert keep.view(history(9), 10**9) == history(9) and keep.events == []


def test_keep_recent_replaces_old_results_only_and_tells_each_once():
    keep = KeepRecent(2)
    view = keep.view(history(4), 70)
    assert results(view) == [OMITTED, OMITTED, "result 2", "result 3"]
    assert [m.tool_call_id for m in view] == [m.tool_call_id for m in history(4)]
    assert results(keep.view(history(5), 80)) == [OMITTED] * 3 + ["result 3", "result 4"]
    told = [(e.policy, e.action, e.at, e.start, e.stop, e.count, e.characters, e.tokens_before) for e in keep.events]
    assert told == [("keep-recent", "omit", 10, 3, 6, 2, 16, 70), ("keep-recent", "omit", 12, 7, 8, 1, 8, 80)]


def test_results_of_parallel_calls_are_one_observation():
    messages = [*history(1), *turn(1, 2, 3), *turn(4)]
    assert results(KeepRecent(2).view(messages, 0)) == [OMITTED, "result 1", "result 2", "result 3", "result 4"]
    assert results(KeepRecent(1).view(messages, 0)) == [OMITTED] * 4 + ["result 4"]


def test_discard_all_restarts_from_the_question_and_goes_on_from_there():
    discard = DiscardAll(100)
    assert discard.view(history(3), 100) == history(3)
    assert discard.view(history(3), 101) == OPENING
    assert discard.view([*history(3), *turn(3)], 30) == [*OPENING, *turn(3)]
    assert discard.view([*history(3), *turn(3), *turn(4)], 120) == OPENING
    assert [(e.at, e.start, e.stop, e.count, e.tokens_before) for e in discard.events] == [
        (8, 2, 8, 6, 101), (12, 8, 12, 4, 120),
    ]  # fmt: skip


def test_discard_all_does_not_discard_nothing():
    discard = DiscardAll(1)
    assert discard.view(OPENING, 50) == OPENING
    assert discard.events == []


def test_a_later_question_belongs_to_the_opening():
    asked = [*history(2), Message(role="assistant", content="42"), Message(role="user", content="and then?")]
    discard = DiscardAll(100)
    assert discard.view(asked, 500) == asked
    assert discard.view([*asked, *turn(2)], 500) == asked


def test_a_turn_that_waits_for_results_is_not_torn():
    waiting = [*history(2), *turn(2, 3)[:2]]
    discard = DiscardAll(10)
    assert discard.view(waiting, 50) == [*OPENING, *turn(2, 3)[:2]]
    assert discard.view([*waiting, turn(2, 3)[2]], 5) == [*OPENING, *turn(2, 3)]


def test_hierarchical_is_keep_recent_inside_discard_all():
    both = Hierarchical(keep=1, threshold=100)
    assert results(both.view(history(3), 90)) == [OMITTED, OMITTED, "result 2"]
    assert both.view(history(3), 110) == OPENING
    assert results(both.view(history(5), 40)) == [OMITTED, "result 4"]
    assert [(event.action, event.at) for event in both.events] == [("omit", 8), ("discard", 8), ("omit", 12)]


def test_summary_puts_notes_in_the_place_of_what_it_leaves_out():
    completer = ScriptedCompleter([note("found 7", prompt_tokens=90, completion_tokens=3), note("found 8", "length")])
    summary = Summary(completer, threshold=100, max_tokens=50)
    assert ask(summary, history(2), 100) == history(2) and completer.requests == []
    first = Message(role="user", content=f"{BEFORE}\n\nfound 7\n\n{AFTER}")
    assert ask(summary, history(2), 101) == [*OPENING, first]
    assert ask(summary, history(3), 60) == [*OPENING, first, *turn(2)]
    second = ask(summary, history(4), 200)
    assert second == [*OPENING, Message(role="user", content=f"{BEFORE}\n\nfound 8\n\n{CUT}\n\n{AFTER}")]
    assert [(e.action, e.start, e.stop, e.prompt_tokens, e.completion_tokens) for e in summary.events] == [
        ("summarize", 2, 6, 90, 3), ("summarize", 6, 10, 0, 0),
    ]  # fmt: skip
    told = completer.requests[1].messages[1].content
    assert "found 7" in told and "result 3" in told and "result 1" not in told
    sampling = completer.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, completer.requests[0].thinking.enabled) == (50, 0.0, False)


def test_a_summary_without_words_says_so_and_one_that_fails_is_a_failure():
    assert NO_NOTES in ask(Summary(ScriptedCompleter([note("  ")]), 10), history(1), 11)[-1].content
    with pytest.raises(EngineError):
        ask(Summary(ScriptedCompleter([EngineError("gone")]), 10), history(1), 11)


def test_the_request_for_a_summary_tells_thoughts_calls_and_the_ends_of_long_results():
    long = [*turn(1)[:1], Message(role="tool", content="a" * 50_000 + "z", tool_call_id="1")]
    told = summary_request([*OPENING, *long], 9).messages[1].content
    assert told.startswith(
        '## system\ns\n\n## user\nquestion\n\n## assistant\n(thinking) think 1\n(call) open {"n": "1"}'
    )
    assert told.endswith("z") and len(told) < 10_000 and "left out" in told


def test_what_was_sent_can_be_told_afterwards():
    both, sent = Hierarchical(keep=1, threshold=100), []
    for turns, tokens in ((1, 20), (2, 90), (3, 110), (4, 40), (5, 60)):
        sent.append((len(history(turns)), both.view(history(turns), tokens)))
    for length, view in sent:
        assert applied(history(5)[:length], both.events) == view


def test_policies_by_name():
    completer = ScriptedCompleter([])
    made = [policy(name, **({"completer": completer} if name == "summary" else {})) for name in POLICIES]
    assert [type(one) for one in made] == [KeepAll, KeepRecent, DiscardAll, Hierarchical, Summary]
    recent = policy("keep-recent", keep=3)
    assert isinstance(recent, KeepRecent) and recent.keep == 3


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("none", {}, "choose one of keep-all, keep-recent"),
        ("keep-all", {"keep": 1}, "unexpected keyword argument 'keep'"),
        ("keep-recent", {"keep": -1}, "keep is -1"),
        ("hierarchical", {"threshold": 0}, "threshold is 0"),
        ("summary", {}, "'completer'"),
    ],
)
def test_wrong_names_and_parameters_are_told(name, parameters, said):
    with pytest.raises(UserError, match=said):
        policy(name, **parameters)
