"""What every context policy keeps, on random histories grown turn by turn, and answers cut to a length."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.agents.answers import capped
from arcforge.agents.context import OMITTED, applied, clearing, observations, opening, settled
from arcforge.agents.policies import DiscardAll, Hierarchical, KeepAll, KeepRecent, Summary
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.messages import Message, ToolCall

THRESHOLD = 100
SYSTEM, QUESTION = Message(role="system", content="s"), Message(role="user", content="q")


@st.composite
def histories(draw):
    """Lengths of a history at which a model is asked, the history, and the tokens told each time."""
    messages = draw(st.sampled_from([[QUESTION], [SYSTEM, QUESTION], [SYSTEM]]))
    messages, asked = list(messages), []
    for number in range(draw(st.integers(0, 9))):
        asked.append(len(messages))
        calls = tuple(ToolCall(name="open", id=f"{number}-{i}") for i in range(draw(st.integers(0, 3))))
        messages.append(Message(role="assistant", reasoning=f"r{number}", content=f"c{number}", tool_calls=calls))
        messages += [Message(role="tool", content=f"o{call.id}", tool_call_id=call.id) for call in calls]
        if not calls:
            messages.append(Message(role="user", content=f"q{number}"))
    asked.append(len(messages))
    tokens = draw(st.lists(st.integers(0, 2 * THRESHOLD), min_size=len(asked), max_size=len(asked)))
    return messages, list(zip(asked, tokens))


def made(keep):
    notes = ScriptedCompleter(lambda request: Message(role="assistant", content=str(len(request.messages[1].content))))
    policies = [KeepAll(), KeepRecent(keep), DiscardAll(THRESHOLD), Hierarchical(keep, THRESHOLD)]
    return [*policies, Summary(notes, THRESHOLD)]


def views(policy, messages, asked):
    async def work():
        seen = []
        for length, tokens in asked:
            await policy.prepare(messages[:length], tokens)
            seen.append(policy.view(messages[:length], tokens))
        return seen

    return asyncio.run(work())


def paired(messages):
    """Whether every call has its result after its turn, in order, and every result its call."""
    waiting = []
    for message in messages:
        if message.role == "tool":
            if not waiting or waiting.pop(0) != message.tool_call_id:
                return False
        elif waiting:
            return False
        waiting += [call.id for call in message.tool_calls]
    return not waiting


def bare(message):
    return message.model_copy(update={"content": ""}) if message.role == "tool" else message


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 4))
def test_every_view_is_a_valid_conversation_of_untouched_messages(history, keep):
    messages, asked = history
    untouched = [message.model_copy(deep=True) for message in messages]
    for policy in made(keep):
        for (length, _), view in zip(asked, views(policy, messages, asked)):
            assert messages == untouched
            assert paired(view)
            start = next((i for i, m in enumerate(messages[:length]) if m.role == "assistant"), length)
            assert view[:start] == messages[:start]
            notes = [event.text for event in policy.events if event.text]
            ours = [m for m in view if m.content not in notes]
            kept = iter(bare(m) for m in messages[:length])
            assert all(bare(message) in kept for message in ours), "not a subsequence of the history"
            assert {m.content for m in view if m.role == "tool"} <= {OMITTED, *(m.content for m in messages)}
            users = [m for m in messages[:length] if m.role in ("system", "user")]
            assert [m for m in ours if m.role in ("system", "user")][-1:] == users[-1:]


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 4))
def test_the_last_observations_stay_whole_and_all_before_go(history, keep):
    messages, asked = history
    for policy in (KeepRecent(keep), Hierarchical(keep, THRESHOLD)):
        for view in views(policy, messages, asked):
            places = observations(view)
            recent = {index for place in places[max(0, len(places) - keep) :] for index in place}
            for index in (index for place in places for index in place):
                omitted = view[index].content == OMITTED
                assert omitted or index in recent
                # What was omitted before a later question stays so, even when a discard leaves nothing newer.
                assert not omitted or index not in recent or index < opening(view)


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 4))
def test_keep_recent_touches_nothing_but_results(history, keep):
    messages, asked = history
    view = views(KeepRecent(keep), messages, asked)[-1]
    assert [bare(m) for m in view] == [bare(m) for m in messages]


@settings(max_examples=50, deadline=None)
@given(histories())
def test_discards_happen_above_the_threshold_exactly(history):
    messages, asked = history
    discard = DiscardAll(THRESHOLD)
    seen = views(discard, messages, asked)
    cleared = {event.at: event for event in discard.events}
    for (length, tokens), view in zip(asked, seen):
        start = max([opening(messages[:length]), *(e.stop for e in discard.events if e.at < length)])
        assert (length in cleared) == (tokens > THRESHOLD and start < length)
        if length in cleared:
            assert view[-1].role in ("system", "user") and cleared[length].tokens_before == tokens


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 4))
def test_asking_again_changes_nothing_and_events_tell_every_view(history, keep):
    messages, asked = history
    for policy in made(keep):
        twice = [pair for pair in asked for _ in range(2)]
        seen = views(policy, messages, twice)
        for (length, _), first, again in zip(asked, seen[::2], seen[1::2]):
            assert first == again == applied(messages[:length], policy.events)
        assert all(before.at <= after.at for before, after in pairwise(policy.events))
        assert all(event.start < event.stop <= event.at and event.count > 0 for event in policy.events)


@settings(max_examples=50, deadline=None)
@given(histories(), st.integers(0, 4))
def test_a_view_is_a_fixed_point(history, keep):
    messages, asked = history
    for policy, fresh in zip(made(keep), made(keep)):
        view = views(policy, messages, asked)[-1]
        assert views(fresh, view, [(len(view), THRESHOLD)])[-1] == view


@pytest.mark.parametrize(("tokens", "cleared"), [(99, False), (100, False), (101, True)])
def test_the_threshold_itself_is_not_above_it(tokens, cleared):
    turn = [Message(role="assistant", tool_calls=(ToolCall(name="a"),)), Message(role="tool", content="x")]
    assert (clearing([QUESTION, *turn], [], tokens, 100, "p") is not None) == cleared


def test_openings_and_settled_turns():
    call = Message(role="assistant", tool_calls=(ToolCall(name="a"), ToolCall(name="b")))
    result = Message(role="tool", content="x")
    assert opening([]) == settled([]) == 0
    assert opening([SYSTEM, call, result]) == 1 and opening([SYSTEM]) == 1
    assert opening([SYSTEM, QUESTION, call, result]) == 2
    assert settled([QUESTION, call, result]) == 1 and settled([QUESTION, call, result, result]) == 4


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.integers(80, 300))
def test_capped_text_keeps_both_ends_within_its_limit(length, limit):
    text = "".join(chr(0x4E00 + place) for place in range(length))
    cut = capped(text, limit)
    assert len(cut) <= limit and (cut == text) == (len(text) <= limit)
    if cut != text:
        head, _, rest = cut.partition("\n[... ")
        note, _, tail = rest.rpartition(" ...]\n")
        assert text.startswith(head) and text.endswith(tail) and head and tail
        assert note == f"{len(text) - len(head) - len(tail)} of {len(text)} characters left out"


def test_a_limit_without_room_for_the_note_is_refused():
    with pytest.raises(ValueError, match="no room"):
        capped("x" * 100, 20)
