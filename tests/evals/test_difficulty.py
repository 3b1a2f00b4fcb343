"""The difficulty filter: rates, failures beside them, resuming, the table, and the family of what was kept."""

import asyncio
import json

import pytest

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Message
from arcforge.envs.registry import family
from arcforge.evals.difficulty import Limits, Measurement, Rate, keep, measure, read_rates, table, write_selection

WHAT = Measurement(family="reason", seed=0, split="train", attempts=4, model="solver")
FAMILY = family("reason")


class Solver:
    """Solves task i on its first i attempts of 4; the engine fails on attempt 0 of task 3 and on all of task 6."""

    def __init__(self, failing=True):
        self.failing = failing
        self.completer = ScriptedCompleter(self.answer)

    def answer(self, request):
        _, _, index, attempt = request.session.split("-")
        index, attempt = int(index), int(attempt)
        if self.failing and (index == 6 or (index == 3 and attempt == 0)):
            return EngineError("gone")
        right = FAMILY.task("train", index).reference["answer"]
        return Message(role="assistant", content=right if attempt < index else "nonsense", reasoning="")


def rates_of(solver, path, indices=range(7), what=WHAT):
    return asyncio.run(measure(what, FAMILY, solver.completer, indices, path, Limits(concurrency=3, timeout=20)))


def test_rates_count_failures_beside_and_never_as_wrong(tmp_path):
    rates = rates_of(Solver(), tmp_path / "rates.jsonl")
    assert [(r.passed, r.graded) for r in rates] == [(0, 4), (1, 4), (2, 4), (2, 3), (4, 4), (4, 4), (0, 0)]
    assert rates[3].failures == {"engine": 1} and rates[6].failures == {"engine": 4} and rates[6].value is None
    assert [r.index for r in keep(rates, 0.25, 0.7)] == [1, 2, 3]
    assert [r.index for r in keep(rates, 0, 1)] == [0, 1, 2, 3, 4, 5]
    assert read_rates(tmp_path / "rates.jsonl")[0] == WHAT
    text = table(rates, 0.25, 0.7)
    assert text.splitlines()[-1].split()[:3] == ["all", "all", "7"] and text.splitlines()[-1].split()[-2:] == ["3", "5"]


def test_a_measurement_goes_on_where_it_was_and_asks_again_what_had_no_rate(tmp_path):
    path = tmp_path / "rates.jsonl"
    first = rates_of(Solver(), path, (0, 1, 6))
    with path.open("a") as file:
        file.write('{"index": 2, "task')  # torn by a kill
    second = Solver(failing=False)
    rates = rates_of(second, path)
    asked = {int(request.session.split("-")[2]) for request in second.completer.requests}
    assert asked == {2, 3, 4, 5, 6} and rates[:2] == first[:2] and rates[6].graded == 4
    assert sorted(read_rates(path)[1], key=lambda rate: rate.index) == rates
    third = Solver()
    assert rates_of(third, path) == rates and not third.completer.requests


def test_another_measurement_in_the_file_is_refused(tmp_path):
    path = tmp_path / "rates.jsonl"
    rates_of(Solver(), path, (0,))
    with pytest.raises(UserError, match="another seed, attempts"):
        rates_of(Solver(), path, (0,), WHAT.model_copy(update={"seed": 1, "attempts": 2}))
    path.write_text("{}\n")
    with pytest.raises(UserError, match="no measurement"):
        read_rates(path)


def test_bad_ranges_and_numbers_are_refused(tmp_path):
    with pytest.raises(UserError, match="0 <= low <= high <= 1"):
        keep([], 0.5, 0.4)
    with pytest.raises(UserError, match="of math:3, the family given is reason"):
        rates_of(Solver(), tmp_path / "r.jsonl", what=WHAT.model_copy(update={"family": "math:3"}))
    with pytest.raises(UserError, match="at least 1"):
        rates_of(Solver(), tmp_path / "r.jsonl", what=WHAT.model_copy(update={"attempts": 0}))


def test_the_kept_tasks_are_a_family(tmp_path):
    rates = rates_of(Solver(), tmp_path / "rates.jsonl")
    write_selection(WHAT, keep(rates, 0.25, 0.7), tmp_path / "kept.json")
    made = family(f"selected:{tmp_path / 'kept.json'}")
    assert [made.task("train", i).task_id for i in range(4)] == [FAMILY.task("train", i).task_id for i in (1, 2, 3, 1)]
    assert made.task("test", 5).task_id == FAMILY.task("test", 5).task_id
    assert made.name == f"selected:{tmp_path / 'kept.json'}" and made.demonstration(3).family == made.name
    assert {made.task(split, 2).family for split in ("train", "test")} == {made.name}
    write_selection(WHAT, [], tmp_path / "none.json")
    for name, told in (("none.json", "empty"), ("missing.json", "cannot be read"), ("rates.jsonl", "no selection")):
        with pytest.raises(UserError, match=told):
            family(f"selected:{tmp_path / name}")


@pytest.mark.parametrize("name", ["swe", "chat", "recall", "math:2", "science+python", "slides"])
def test_the_kept_tasks_of_any_family_say_the_name_of_their_own(name, tmp_path):
    """Rollouts and losses are looked up by it."""
    what = Measurement(family=name, seed=3, split="train", attempts=1, model="none")
    write_selection(what, [Rate(index=4, task_id="", kind="", level=0, passed=1, graded=2)], tmp_path / "kept.json")
    made, inner = family(f"selected:{tmp_path / 'kept.json'}"), family(name, 3)
    task, whole = made.task("train", 1), inner.task("train", 4)
    assert task.family == made.name and (task.task_id, task.messages) == (whole.task_id, whole.messages)


def test_levels_of_tasks_are_in_the_table(tmp_path):
    made, what = family("math:4"), Measurement(family="math:4", seed=0, split="train", attempts=1, model="none")
    right = ScriptedCompleter(lambda request: Message(role="assistant", content="no box"))
    rates = asyncio.run(measure(what, made, right, range(9), tmp_path / "r.jsonl"))
    assert {rate.level for rate in rates} == {4} and {rate.kind for rate in rates} == set(made.domains)
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["family"] == "math:4"
    assert ["algebra", "4", "1"] in [line.split()[:3] for line in table(rates, 0, 1).splitlines()]
