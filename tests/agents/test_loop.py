"""The agent loop against scripts."""

import asyncio
from dataclasses import dataclass

import pytest

from arcforge.agents.loop import NO_LIMITS, Budget, run_agent
from arcforge.agents.policies import DiscardAll, KeepAll, Summary
from arcforge.agents.tools import TOOLS
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, RolloutTimeout, ToolError
from arcforge.core.messages import Message, Sampling, Thinking, ToolCall, turn_seed
from arcforge.core.protocols import Completion

OPENING = (Message(role="system", content="s"), Message(role="user", content="u"))


@dataclass
class SmallTask:
    task_id: str = "t"
    family: str = "f"
    domain: str = "d"
    messages: tuple = OPENING
    tools: tuple = TOOLS
    thinking: Thinking = Thinking(enabled=False)  # noqa: RUF009 - a frozen value
    max_turns: int = 4
    max_tokens: int = 7


class Echo:
    """An episode that answers a tool's name; `submit` ends it, `crash` breaks."""

    def __init__(self):
        self.done, self.called = False, []

    async def call(self, call):
        self.called.append(call.name)
        self.done = call.name == "submit"
        if call.name == "crash":
            raise ToolError("crashed")
        if call.name == "hang":
            await asyncio.sleep(60)
        if call.name == "doze":
            await asyncio.sleep(0.06)
        return f"<{call.name}>"


def calls(*names, content=""):
    made = tuple(ToolCall(name=name, id=f"id-{name}") for name in names)
    return Message(role="assistant", content=content, tool_calls=made)


def run(*answers, policy=None, deadline=None, seed=5, budget=NO_LIMITS, **task):
    completer, episode = ScriptedCompleter(list(answers)), Echo()

    async def work():
        end = None if deadline is None else asyncio.get_running_loop().time() + deadline
        sampling = Sampling(seed=seed, temperature=0.5, max_tokens=999)
        chosen = policy or KeepAll()
        return await run_agent(SmallTask(**task), episode, completer, chosen, sampling, end, "sess", budget)

    return asyncio.run(work()), completer, episode


def test_calls_are_answered_until_submit():
    result, completer, episode = run(calls("test"), calls("read", "list"), calls("submit"))
    assert (result.stop_reason, result.turns, result.tool_calls) == ("submitted", 3, 4)
    assert episode.called == ["test", "read", "list", "submit"]
    assert [m.content for m in result.messages if m.role == "tool"] == ["<test>", "<read>", "<list>", "<submit>"]
    assert [m.tool_call_id for m in result.messages if m.role == "tool"][1:3] == ["id-read", "id-list"]
    assert result.messages[:2] == list(OPENING)
    second = completer.requests[1]
    assert second.messages == tuple(result.messages[:4]) and second.session == "sess" and second.tools == TOOLS
    assert not second.thinking.enabled
    assert (second.sampling.max_tokens, second.sampling.temperature) == (7, 0.5)
    seeds = [request.sampling.seed for request in completer.requests]
    assert len(set(seeds)) == 3 and seeds[1] == turn_seed(5, 1)


def test_nothing_runs_after_submit():
    result, _, episode = run(calls("submit", "edit"))
    assert episode.called == ["submit"] and result.tool_calls == 1


def test_an_answer_without_a_call_finishes():
    result, _, _ = run(Message(role="assistant", content="done"))
    assert result.stop_reason == "finished" and result.messages[-1].content == "done"


def test_out_of_turns():
    result, completer, _ = run(*[calls("test")] * 9)
    assert (result.stop_reason, result.turns, len(completer.requests)) == ("max_turns", 4, 4)


@pytest.mark.parametrize(("finish", "stop"), [("length", "max_tokens"), ("malformed", "malformed")])
def test_a_malformed_or_truncated_call_halts_the_trace_and_is_not_run(finish, stop):
    bad = Completion(message=calls("edit"), finish_reason=finish, problem="half a call")
    result, _, episode = run(calls("test"), bad, calls("submit"))
    assert (result.stop_reason, result.problem, result.turns) == (stop, "half a call", 2)
    assert episode.called == ["test"]
    assert result.messages[-1] == bad.message


def test_boundary_errors_pass_through():
    with pytest.raises(ToolError):
        run(calls("crash"))
    with pytest.raises(EngineError):
        run(EngineError("gone"))


def test_the_deadline_is_a_rollout_timeout():
    with pytest.raises(RolloutTimeout, match="turn 1"):
        run(calls("hang"), deadline=0.1)


def test_the_policy_sees_the_tokens_of_the_last_turn():
    def answer(message, tokens):
        return Completion(message=message, finish_reason="tool_calls", prompt_tokens=tokens, completion_tokens=10)

    policy = DiscardAll(100)
    script = [
        answer(calls("test"), 50),
        answer(calls("read"), 91),
        answer(calls("list"), 20),
        answer(calls("submit"), 30),
    ]
    result, completer, _ = run(*script, policy=policy)
    assert [len(request.messages) for request in completer.requests] == [2, 4, 2, 4]
    assert (result.prompt_tokens, result.completion_tokens) == (191, 40)
    assert len(result.messages) == 2 + 8 and [event.at for event in policy.events] == [6]


def test_a_summary_is_waited_for_and_its_tokens_count():
    def answer(message, tokens, reason="tool_calls"):
        return Completion(message=message, finish_reason=reason, prompt_tokens=tokens, completion_tokens=10)

    notes = ScriptedCompleter([answer(Message(role="assistant", content="notes"), 70, "stop")])
    script = [answer(calls("test"), 95), answer(calls("submit"), 20)]
    policy = Summary(notes, 100)
    result, completer, _ = run(*script, policy=policy)
    assert [m.role for m in completer.requests[1].messages] == ["system", "user", "user"]
    assert "notes" in completer.requests[1].messages[-1].content
    assert [event.action for event in policy.events] == ["summarize"]
    assert (result.prompt_tokens, result.completion_tokens, result.turns) == (95 + 70 + 20, 30, 2)
    assert [m.role for m in result.messages] == ["system", "user", *["assistant", "tool"] * 2]


@pytest.mark.parametrize(
    ("budget", "stop", "called"),
    [
        (Budget(tool_calls=3), "max_tool_calls", ["test", "list", "test"]),
        (Budget(tool_calls=0), "max_tool_calls", []),
        (Budget(tool_calls=8), "max_turns", ["test", "list"] * 4),
        (Budget(total_tokens=60), "max_total_tokens", ["test", "list"] * 2),
        (Budget(total_tokens=61), "max_total_tokens", ["test", "list"] * 3),
        (Budget(total_tokens=0), "max_total_tokens", []),
        (Budget(seconds=0), "max_seconds", []),
        (Budget(seconds=60), "max_turns", ["test", "list"] * 4),
    ],
)
def test_budgets_end_the_run_at_their_exact_limit(budget, stop, called):
    turn = Completion(message=calls("test", "list"), finish_reason="tool_calls", prompt_tokens=20, completion_tokens=10)
    result, _, episode = run(*[turn] * 9, budget=budget)
    assert (result.stop_reason, episode.called, result.tool_calls) == (stop, called, len(called))
    assert [m.content for m in result.messages if m.role == "tool"] == [f"<{name}>" for name in called]


def test_time_that_ran_out_in_a_turn_is_seen_before_the_next():
    result, _, episode = run(calls("doze"), calls("test"), budget=Budget(seconds=0.05))
    assert (result.stop_reason, episode.called) == ("max_seconds", ["doze"])


@pytest.mark.parametrize(
    "thinking", [Thinking(), Thinking(preserved=True), Thinking(enabled=False), Thinking(enabled=False, preserved=True)]
)
def test_the_thinking_mode_reaches_every_request(thinking):
    _, completer, _ = run(calls("test"), calls("submit"), thinking=thinking)
    assert [request.thinking for request in completer.requests] == [thinking] * 2
