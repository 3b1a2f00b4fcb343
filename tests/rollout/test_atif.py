"""ATIF as its readers check it: ids in sequence, agent's fields on agent's steps alone, answers that belong to calls."""

import json

import pytest

from arcforge.core.messages import Message, ToolCall, ToolSpec
from arcforge.rollout.atif import atif

AGENT_ONLY = {"model_name", "reasoning_content", "tool_calls", "observation", "metrics"}
ALL = AGENT_ONLY | {"step_id", "source", "message"}


def conversation():
    return [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Fix it."),
        Message(
            role="assistant",
            reasoning="look first",
            tool_calls=(ToolCall(name="read", arguments={"path": "a.py"}), ToolCall(name="list", id="mine")),
        ),
        Message(role="tool", content="a.py", tool_call_id="mine"),
        Message(role="tool", content="x = 1"),
        Message(role="assistant", content="Done."),
    ]


def test_a_conversation_becomes_steps_with_its_observations():
    tools = (ToolSpec(name="read", description="a file", parameters={"type": "object"}),)
    metrics = [{"prompt_tokens": 10, "completion_tokens": 4}, {"prompt_tokens": 20, "completion_tokens": 1}]
    told = atif(
        conversation(), session_id="swe-1", agent="arcforge", version="0.1", model="m", tools=tools, metrics=metrics,
        extra={"reward": 1.0},
    )  # fmt: skip
    assert json.loads(json.dumps(told)) == told and told["schema_version"] == "ATIF-v1.8"
    steps = told["steps"]
    assert [(step["step_id"], step["source"]) for step in steps] == [
        (1, "system"), (2, "user"), (3, "agent"), (4, "agent"),
    ]  # fmt: skip
    assert all(step.keys() <= ALL for step in steps)
    assert not any(AGENT_ONLY & step.keys() for step in steps if step["source"] != "agent")
    calls = {call["tool_call_id"]: call["function_name"] for call in steps[2]["tool_calls"]}
    answers = {result["source_call_id"]: result["content"] for result in steps[2]["observation"]["results"]}
    assert calls.keys() == answers.keys() and {calls[one]: text for one, text in answers.items()} == {
        "read": "x = 1", "list": "a.py",
    }  # fmt: skip
    assert told["final_metrics"] == {"total_steps": 4, "total_prompt_tokens": 30, "total_completion_tokens": 5}
    assert told["agent"]["tool_definitions"][0]["function"]["name"] == "read" and told["extra"] == {"reward": 1.0}


@pytest.mark.parametrize(
    "messages",
    [
        [Message(role="tool", content="x")],
        [Message(role="assistant", content="no call"), Message(role="tool", content="x")],
        [*conversation()[:5], Message(role="tool", content="once more", tool_call_id="mine")],
        [*conversation()[:3], Message(role="tool", content="x", tool_call_id="other")],
    ],
)
def test_an_answer_to_nothing_is_refused(messages):
    with pytest.raises(ValueError, match="to no call"):
        atif(messages, session_id="s", agent="a", version="1")
