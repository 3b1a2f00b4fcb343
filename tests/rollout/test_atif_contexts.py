"""Runs with resets as ATIF: every turn told once, copies marked, one document goes on in the next."""

import asyncio
import json

from arcforge.agents.policies import DiscardAll, Hierarchical, KeepAll, Summary
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import ContextEvent
from arcforge.rollout.atif import atif
from arcforge.rollout.atif_contexts import atif_contexts

OPENING = [Message(role="system", content="s"), Message(role="user", content="q")]


def turn(number):
    call = ToolCall(name="open", arguments={"page": number}, id=f"call-{number}")
    return [
        Message(role="assistant", content=f"turn {number}", tool_calls=(call,)),
        Message(role="tool", content=f"page {number}", tool_call_id=call.id),
    ]


def run(policy, tokens):
    """The history, when the policy was asked before each turn with these tokens."""
    messages = list(OPENING)

    async def work():
        for number, one in enumerate(tokens):
            await policy.prepare(messages, one)
            policy.view(messages, one)
            messages.extend(turn(number))

    asyncio.run(work())
    return messages


def export(messages, events, **more):
    told = atif_contexts(messages, events, session_id="s-1", agent="arcforge", version="1", **more)
    assert json.loads(json.dumps(told)) == told
    for document in told.values():
        assert [step["step_id"] for step in document["steps"]] == list(range(1, len(document["steps"]) + 1))
    return told


def said(document, copied):
    return [step["message"] for step in document["steps"] if step.get("is_copied_context", False) == copied]


def test_without_a_reset_there_is_one_document_as_ever():
    messages, metrics = run(KeepAll(), [0, 9]), [{"prompt_tokens": 1}, {"prompt_tokens": 2}]
    told = export(messages, [], metrics=metrics, extra={"reward": 1.0})
    assert list(told) == ["trajectory.json"]
    assert told["trajectory.json"] == atif(
        messages, session_id="s-1", agent="arcforge", version="1", metrics=metrics, extra={"reward": 1.0}
    )


def test_each_discard_begins_a_document_with_the_opening_copied():
    policy = DiscardAll(100)
    messages = run(policy, [0, 50, 101, 20, 150])
    metrics = [{"prompt_tokens": 10 + number} for number in range(5)]
    told = export(messages, policy.events, metrics=metrics)
    assert list(told) == ["trajectory.json", "trajectory.cont-1.json", "trajectory.cont-2.json"]
    first, second, third = told.values()
    assert [d.get("continued_trajectory_ref") for d in told.values()] == [*list(told)[1:], None]
    assert [d["session_id"] for d in told.values()] == ["s-1", "s-1-cont-1", "s-1-cont-2"]
    assert (said(first, True), said(first, False)) == ([], ["s", "q", "turn 0", "turn 1"])
    assert (said(second, True), said(second, False)) == (["s", "q"], ["turn 2", "turn 3"])
    assert (said(third, True), said(third, False)) == (["s", "q"], ["turn 4"])
    assert [d["final_metrics"]["total_prompt_tokens"] for d in told.values()] == [21, 25, 14]
    assert "extra" not in first
    assert ContextEvent.model_validate(second["extra"]["context_events"][0]) == policy.events[0]


def test_notes_are_a_new_step_and_omissions_are_told_beside_the_full_results():
    notes = ScriptedCompleter([Message(role="assistant", content="found it")])
    policy = Summary(notes, 100)
    messages = run(policy, [0, 101, 3])
    second = export(messages, policy.events)["trajectory.cont-1.json"]
    assert said(second, True) == ["s", "q"] and [step["source"] for step in second["steps"]][:3] == [
        "system",
        "user",
        "user",
    ]
    assert "found it" in said(second, False)[0] and said(second, False)[1:] == ["turn 1", "turn 2"]

    both = Hierarchical(keep=1, threshold=100)
    messages = run(both, [0, 10, 20, 101, 5, 6])
    first, second = export(messages, both.events).values()
    assert [event["action"] for event in first["extra"]["context_events"]] == ["omit"]
    assert [event["action"] for event in second["extra"]["context_events"]] == ["discard", "omit"]
    results = [step["observation"]["results"][0]["content"] for step in first["steps"][2:]]
    assert results == ["page 0", "page 1", "page 2"]


def test_turns_before_a_later_question_are_copied_without_their_metrics():
    messages = [
        *OPENING,
        *turn(0),
        Message(role="assistant", content="a"),
        Message(role="user", content="q2"),
        *turn(1),
    ]
    policy = DiscardAll(100)
    policy.view(messages, 200)
    messages = [*messages, *turn(2)]
    metrics = [{"prompt_tokens": 10 + number} for number in range(4)]
    first, second = export(messages, policy.events, metrics=metrics).values()
    assert said(second, True) == ["s", "q", "turn 0", "a", "q2"] and said(second, False) == ["turn 2"]
    assert [step.get("metrics") for step in second["steps"]] == [None] * 5 + [{"prompt_tokens": 13}]
    assert said(first, False) == ["s", "q", "turn 0", "a", "q2", "turn 1"]
