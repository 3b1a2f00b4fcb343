"""Context policies on hand-made and random histories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcforge.agents.policies import OMITTED, POLICIES, DiscardAll, Hierarchical, KeepAll, KeepRecent, policy
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, ToolCall

OPENING = [Message(role="system", content="s"), Message(role="user", content="question")]


def turn(number):
    call = ToolCall(name="open", arguments={"n": str(number)}, id=str(number))
    return [
        Message(role="assistant", reasoning=f"think {number}", tool_calls=(call,)),
        Message(role="tool", content=f"result {number}", tool_call_id=str(number)),
    ]


def history(turns):
    return [*OPENING, *(message for number in range(turns) for message in turn(number))]


def results(messages):
    return [message.content for message in messages if message.role == "tool"]


def test_the_omission_is_the_literal_string():
    assert OMITTED == "Tool result is omitted to save tokens."


def test_keep_all():
    assert KeepAll().view(history(9), 10**9) == history(9)


def test_keep_recent_replaces_old_results_only():
    view = KeepRecent(2).view(history(4), 0)
    assert results(view) == [OMITTED, OMITTED, "result 2", "result 3"]
    assert [m.tool_call_id for m in view] == [m.tool_call_id for m in history(4)]


@given(st.integers(0, 8), st.integers(0, 8))
def test_keep_recent_leaves_reasoning_and_calls(turns, keep):
    messages = history(turns)
    view = KeepRecent(keep).view(messages, 0)
    assert [m for m in view if m.role != "tool"] == [m for m in messages if m.role != "tool"]
    assert results(view) == [OMITTED] * max(0, turns - keep) + results(messages)[max(0, turns - keep) :]


def test_discard_all_restarts_from_the_question_and_goes_on_from_there():
    discard = DiscardAll(100)
    assert discard.view(history(3), 100) == history(3)
    assert discard.view(history(3), 101) == OPENING
    assert discard.view([*history(3), *turn(3)], 30) == [*OPENING, *turn(3)]
    assert discard.view([*history(3), *turn(3), *turn(4)], 120) == OPENING
    assert discard.discards == [len(history(3)), len(history(5))]


def test_discard_all_does_not_discard_nothing():
    discard = DiscardAll(1)
    assert discard.view(OPENING, 50) == OPENING
    assert discard.discards == []


def test_hierarchical_is_keep_recent_inside_discard_all():
    both = Hierarchical(keep=1, threshold=100)
    assert results(both.view(history(3), 90)) == [OMITTED, OMITTED, "result 2"]
    assert both.view(history(3), 110) == OPENING
    assert results(both.view(history(5), 40)) == [OMITTED, "result 4"]
    assert both.discards == [len(history(3))]


def test_policies_by_name():
    assert {type(policy(name)) for name in POLICIES} == {KeepAll, KeepRecent, DiscardAll, Hierarchical}
    made = policy("keep-recent", keep=3)
    assert isinstance(made, KeepRecent) and made.keep == 3
    for wrong in (lambda: policy("none"), lambda: policy("keep-all", keep=1), lambda: policy("keep-recent", keep=-1)):
        with pytest.raises(UserError):
            wrong()
