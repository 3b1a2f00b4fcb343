"""Evaluations over the real families with scripted answers: results, failures, order, bounds."""

import asyncio

import pytest

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, Failure
from arcforge.core.messages import Message
from arcforge.core.trajectory import Trajectory
from arcforge.envs.chat import ChatFamily
from arcforge.envs.reason import ReasonFamily
from arcforge.envs.reason.family import careful
from arcforge.evals.doors import CompleterDoor
from arcforge.evals.run import Cell, evaluate, summary
from arcforge.evals.stats import wilson
from arcforge.evals.table import aligned, difference, entry, matrix

FAMILY = ReasonFamily(seed=3)
PROBLEMS = [FAMILY.problem("test", index) for index in range(24)]
TASKS = [FAMILY.task("test", index) for index in range(24)]


def answering(reply):
    """A completer that finds the problem of a request and answers reply(number, problem)."""
    numbers = {problem.question: number for number, problem in enumerate(PROBLEMS)}

    def script(request):
        number = numbers[request.messages[-1].content]
        return reply(number, PROBLEMS[number])

    return ScriptedCompleter(script)


def wrong(problem):
    return Message(role="assistant", reasoning="guess", content=problem.wrong[0])


def run(completer, tasks=TASKS, **options):
    return asyncio.run(evaluate(tasks, CompleterDoor(completer), **options))


def test_right_and_wrong_answers_are_counted_per_domain():
    cells = summary(run(answering(lambda number, problem: careful(problem) if number % 4 else wrong(problem))))
    assert [(cell.family, cell.domain) for cell in cells] == [
        ("reason", domain) for domain in ("all", "math", "code", "logic", "table")
    ]
    assert [(cell.correct, cell.total) for cell in cells] == [(18, 24), (0, 6), (6, 6), (6, 6), (6, 6)]
    expected = wilson(18, 24)
    assert (cells[0].value, cells[0].low, cells[0].high) == (expected.value, expected.low, expected.high)


def test_a_failure_is_excluded_and_counted():
    def reply(number, problem):
        return EngineError("down") if number < 4 else careful(problem)

    trajectories = run(answering(reply))
    whole = summary(trajectories)[0]
    assert (whole.correct, whole.total, whole.failures) == (20, 20, {"engine": 4})
    assert whole.value == 1.0
    assert trajectories[0].reward is None


def test_nothing_graded_gives_no_value():
    cell = summary(run(answering(lambda number, problem: EngineError("down")), TASKS[:1]))[0]
    assert (cell.total, cell.value, cell.low, cell.failures) == (0, None, None, {"engine": 1})
    assert entry(cell) == "- !1"


def test_order_is_that_of_the_tasks_and_seeds_differ():
    trajectories = run(
        answering(lambda number, problem: careful(problem)), TASKS[:5], attempts=3, seed=7, concurrency=2
    )
    assert [t.task_id for t in trajectories] == [task.task_id for task in TASKS[:5] for _ in range(3)]
    assert [t.attempt for t in trajectories] == [0, 1, 2] * 5
    assert len({t.seed for t in trajectories}) == 15
    assert len({t.rollout_id for t in trajectories}) == 15
    again = run(answering(lambda number, problem: careful(problem)), TASKS[:5], attempts=3, seed=7)
    assert [t.seed for t in again] == [t.seed for t in trajectories]


def test_temperature_reaches_the_model():
    completer = answering(lambda number, problem: careful(problem))
    run(completer, TASKS[:1], temperature=0.25)
    assert completer.requests[0].sampling.temperature == 0.25
    assert completer.requests[0].sampling.max_tokens == TASKS[0].max_tokens


def test_concurrency_is_bounded_and_used():
    class Busy:
        running = most = 0

        async def complete(self, request):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.005)
            self.running -= 1
            return await answering(lambda number, problem: careful(problem)).complete(request)

    busy, seen = Busy(), []
    run(busy, concurrency=3, on_finished=seen.append)
    assert busy.most == 3
    assert len(seen) == len(TASKS)


def test_a_model_that_never_answers_times_out():
    class Silent:
        async def complete(self, request):
            await asyncio.sleep(30)

    cell = summary(run(Silent(), TASKS[:2], timeout=0.05))[0]
    assert (cell.total, cell.failures) == (0, {"timeout": 2})


def test_impossible_bounds_are_refused():
    for options in ({"concurrency": 0}, {"attempts": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            run(answering(lambda number, problem: careful(problem)), **options)


def test_chat_is_graded_through_the_same_door():
    family = ChatFamily()
    items = {item.request: item for item in (family.item("dev", index) for index in range(12))}

    def script(request):
        return Message(role="assistant", content=items[request.messages[-1].content].good)

    completer = ScriptedCompleter(script)
    cells = summary(run(completer, [family.task("dev", index) for index in range(12)]))
    assert [(cell.domain, cell.correct, cell.total) for cell in cells] == [
        ("all", 12, 12),
        ("correctness", 4, 4),
        ("emotion", 4, 4),
        ("quality", 4, 4),
    ]
    assert completer.requests[0].thinking.enabled is False


def test_fractional_rewards_keep_their_mean():
    trajectories = [
        Trajectory(rollout_id=str(i), family="chat", task_id=str(i), reward=reward, info={"domain": "emotion"})
        for i, reward in enumerate((0.25, 0.5, 1.0, 1.0))
    ]
    failed = Trajectory(rollout_id="x", family="chat", task_id="x", failure=Failure(boundary="judge", reason="no"))
    whole, emotion = summary([*trajectories, failed])
    assert (whole.correct, whole.total, whole.value, whole.failures) == (2, 4, 0.6875, {"judge": 1})
    assert whole.low is not None and whole.high is not None and whole.low < 0.6875 < whole.high
    assert (emotion.domain, emotion.failures) == ("emotion", {})


def test_table():
    cell = Cell(family="reason", correct=51, total=128, value=0.3984, low=0.3178, high=0.485)
    rows = {"sft": {"reason": cell}, "rl": {"reason": cell.model_copy(update={"failures": {"engine": 2}}), "swe": cell}}
    assert matrix(rows).splitlines() == [
        "checkpoint                reason                swe",
        "---------------------------------------------------",
        "sft            39.8 [31.8, 48.5]                  -",
        "rl          39.8 [31.8, 48.5] !2  39.8 [31.8, 48.5]",
        "!n: n attempts failed outside the model and are excluded (2 in all)",
    ]
    assert difference(wilson(50, 100)) == "+50.0 [+40.4, +59.6]"
    assert aligned([["a", "b"], ["long", "1"]]) == "a     b\n-------\nlong  1"
