"""Attempts and groups on the swe family, behind a small door over a script."""

import asyncio
import os
import sys
import time

import pytest

from arcforge.agents.policies import DiscardAll
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, GatewayError, JudgeError, SandboxError
from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import Completion, ContextEvent, Verdict
from arcforge.core.trajectory import TokenSpan
from arcforge.envs.swe.family import SweFamily
from arcforge.envs.swe.oracle import oracle
from arcforge.rollout.attempt import attempt
from arcforge.rollout.groups import group

SPANS = [TokenSpan(ids=[1, 2], source="prompt"), TokenSpan(ids=[3], source="model", logprobs=[-0.5], version=2)]


class ScriptDoor:
    """Answers every rollout with one script; the record of each is SPANS."""

    def __init__(self, answers=oracle, spans=SPANS, open_error=None, close_error=None):
        self.completer, self.spans = ScriptedCompleter(answers), spans
        self.open_error, self.close_error = open_error, close_error
        self.opened, self.closed = [], []

    def open(self, rollout_id, task):
        if self.open_error:
            raise self.open_error
        self.opened.append(rollout_id)
        return self.completer

    def close(self, rollout_id):
        self.closed.append(rollout_id)
        if self.close_error:
            raise self.close_error
        return [list(self.spans)] if self.spans else []


def with_family(scenario):
    async def work():
        family = SweFamily(0)
        try:
            return await scenario(family)
        finally:
            await family.close()

    return asyncio.run(asyncio.wait_for(work(), 60))


def one(door, wrap=None, **options):
    async def scenario(family):
        task = family.task("train", 0)
        return await attempt(wrap(task) if wrap else task, door, rollout_id="g/0", **options)

    return with_family(scenario)


def say(name, **arguments):
    return Message(role="assistant", tool_calls=(ToolCall(name=name, arguments=arguments),))


class Broken:
    """A task whose episode breaks where it is told to."""

    def __init__(self, task, **broken):
        self._task, self._broken = task, broken

    def __getattr__(self, name):
        return getattr(self._task, name)

    async def open(self):
        if "open" in self._broken:
            raise self._broken["open"]
        episode = await self._task.open()
        for name in ("grade", "close"):
            if name in self._broken:
                self._replace(episode, name, getattr(episode, name), self._broken[name])
        return episode

    @staticmethod
    def _replace(episode, name, original, result):
        async def broken(*arguments):
            await original(*arguments)
            if isinstance(result, Exception):
                raise result
            return result

        setattr(episode, name, broken)


def test_a_solved_attempt():
    door = ScriptDoor()
    found = one(door, group_id="g", attempt=3, seed=11, temperature=0.7)
    assert found.valid and found.reward == 1.0 and found.stop_reason == "submitted"
    assert (found.rollout_id, found.family, found.task_id) == ("g/0", "swe", "swe/train/0")
    assert (found.group_id, found.attempt, found.seed) == ("g", 3, 11)
    assert found.spans == SPANS and found.versions == [2]
    assert found.finished >= found.started > 0
    assert found.metrics["turns"] == found.metrics["tool_calls"] >= 4 and found.metrics["forks"] == 1
    assert found.metrics["seconds"] >= found.metrics["model_seconds"] + found.metrics["grade_seconds"]
    assert found.info["domain"] == "repair" and found.info["verdict"]["tests"] == "ok" and "messages" not in found.info
    assert door.opened == door.closed == ["g/0"]
    assert {request.session for request in door.completer.requests} == {"g/0"}
    assert {request.sampling.temperature for request in door.completer.requests} == {0.7}


def test_without_a_token_record_the_messages_are_kept():
    found = one(ScriptDoor(spans=[]))
    assert found.spans == [] and found.info["messages"][0]["role"] == "system"
    assert [Message.model_validate(m) for m in found.info["messages"]][-1].role == "tool"


def test_a_failed_repair_is_a_score():
    found = one(ScriptDoor([say("submit")]))
    assert found.valid and found.reward == 0.0


def test_a_malformed_call_is_graded_as_it_stands():
    bad = Completion(message=Message(role="assistant"), finish_reason="malformed", problem="no name")
    found = one(ScriptDoor([bad]))
    assert (found.reward, found.stop_reason, found.info["problem"]) == (0.0, "malformed", "no name")


@pytest.mark.parametrize(
    ("door", "broken", "boundary"),
    [
        (ScriptDoor([EngineError("gone")]), {}, "engine"),
        (ScriptDoor([]), {}, "engine"),
        (ScriptDoor(open_error=GatewayError("open twice")), {}, "gateway"),
        (ScriptDoor(close_error=GatewayError("lost")), {}, "gateway"),
        (ScriptDoor(), {"open": SandboxError("no disk")}, "sandbox"),
        (ScriptDoor(), {"grade": JudgeError("unreadable")}, "judge"),
        (ScriptDoor(), {"grade": Verdict(reward=None)}, "judge"),
    ],
)
def test_every_boundary_error_is_a_failure_and_never_a_score(door, broken, boundary):
    found = one(door, wrap=lambda task: Broken(task, **broken))
    assert found.failure and found.failure.boundary == boundary
    assert found.reward is None and not found.valid
    assert door.opened == door.closed


def test_a_verdict_survives_a_close_that_fails():
    found = one(ScriptDoor(), wrap=lambda task: Broken(task, close=SandboxError("busy")))
    assert found.reward == 1.0 and "busy" in found.info["close"]


def test_wall_clock_timeout_is_a_failure_and_closes_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    tempfile.tempdir = None

    class Slow(ScriptDoor):
        def open(self, rollout_id, task):
            super().open(rollout_id, task)
            return self

        async def complete(self, request):
            await asyncio.sleep(60)

    try:
        started, door = time.monotonic(), Slow()
        found = one(door, timeout=0.2)
        assert found.failure and found.failure.boundary == "timeout" and found.reward is None
        assert found.spans == SPANS and door.closed == ["g/0"]
        assert time.monotonic() - started < 10
        assert list(tmp_path.glob("arcforge-*")) == []
    finally:
        tempfile.tempdir = None


def test_a_bug_is_raised_after_closing():
    door = ScriptDoor([say("test"), ZeroDivisionError("bug")])
    door.completer = ScriptedCompleter(lambda request: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        one(door)
    assert door.closed == ["g/0"]


def test_what_the_policy_decided_is_told():
    def answer(request):
        message = oracle(request)
        return Completion(message=message, finish_reason="tool_calls", prompt_tokens=60 * len(request.messages))

    found = one(ScriptDoor(answer), policy=lambda: DiscardAll(200))
    events = [ContextEvent.model_validate(event) for event in found.info["context_events"]]
    assert {event.action for event in events} == {"discard"} and found.stop_reason in ("max_turns", "submitted")
    assert found.metrics["context_resets"] == len(events)


def test_a_group_shares_the_task_and_differs_in_seeds():
    async def scenario(family):
        door = ScriptDoor()
        limit = asyncio.Semaphore(3)
        return await group(family.task("train", 0), door, 6, group_id="train/0", seed=1, limit=limit), door

    found, door = with_family(scenario)
    assert [t.rollout_id for t in found] == [f"train/0/{i}" for i in range(6)]
    assert [t.attempt for t in found] == list(range(6)) and {t.reward for t in found} == {1.0}
    assert len({t.seed for t in found}) == 6 and {t.group_id for t in found} == {"train/0"}
    assert sorted(door.closed) == sorted(door.opened)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU seconds of the fork server come from /proc")
def test_an_episode_of_eight_tool_calls_costs_little_cpu():
    """Everything but the model: files, forks, grading, records. All processes counted, in CPU seconds."""

    def answer(request):
        step = sum(message.role == "assistant" for message in request.messages)
        path = next(iter(request.messages[1].content.split()[-1:]))
        calls = [say("test"), say("list"), say("search", text=path), say("read", path="test.py")]
        calls += [say("edit", path="test.py", old="assert", new="assert"), say("test"), say("test"), say("submit")]
        return calls[step]

    async def scenario(family):
        await attempt(family.task("train", 0), ScriptDoor(), rollout_id="warm")
        before = time.process_time() + _tree_seconds(family.task("train", 0).server.pid)
        found = [await attempt(family.task("train", i), ScriptDoor(answer), rollout_id=str(i)) for i in range(15)]
        after = time.process_time() + _tree_seconds(family.task("train", 0).server.pid)
        assert {t.metrics["tool_calls"] for t in found} == {8.0} and all(t.valid for t in found)
        return (after - before) / len(found)

    seconds = with_family(scenario)
    print(f"{1000 * seconds:.1f} ms")
    assert seconds < 0.060


def _tree_seconds(pid):
    """User and system seconds of a process and its finished children."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
