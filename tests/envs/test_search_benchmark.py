"""benchmarks/search_env.py, called again: what it takes from an earlier call, and what it does anew."""

import importlib.util
import json
from pathlib import Path

import pytest
from search_pages import write_debian, write_proposals, write_sphinx

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError
from arcforge.core.messages import Message
from arcforge.envs.search.family import GRAPH, read_questions
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.filters import CLOSED_BOOK, NOT_RUN, PASSED, Filters
from arcforge.envs.search.questions.verification import Verification

FILE = Path(__file__).parents[2] / "benchmarks" / "search_env.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("search_env", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(benchmark, tmp_path):
    write_debian(tmp_path / "doc", releases=6)
    write_sphinx(tmp_path / "doc" / "html")
    write_proposals(tmp_path / "doc" / "proposals")

    def call(*more):
        out = tmp_path / "result.json"
        benchmark.main(
            ["--folder", str(tmp_path / "doc"), "--work", str(tmp_path / "work"), "--out", str(out), *map(str, more)]
        )
        return json.loads(out.read_text())

    return call


def test_a_second_call_takes_the_drawing_with_its_account_and_filters_nothing_again(run):
    first, second = run(), run()
    assert second["drawing"] == first["drawing"] and first["drawing"]["walks_that_failed"]
    assert first["filtering"]["of_this_call"] == first["filtering"]["questions"] > 5
    assert second["filtering"]["of_this_call"] == 0
    assert second["filters"] == first["filters"] and second["samples"] == first["samples"]


def test_another_seed_or_number_of_questions_is_drawn_anew(run):
    first = run()
    assert run("--questions", 3)["drawing"]["questions"] == 3
    assert run("--seed", 1)["drawing"]["walks_that_failed"] != first["drawing"]["walks_that_failed"]
    assert run()["drawing"] == first["drawing"]


def test_changed_pages_are_drawn_from_and_filtered_anew(run, tmp_path):
    run()
    work = tmp_path / "work"
    before = {path.name for path in work.glob("*-*.json*")}
    write_debian(tmp_path / "doc" / "more", 5, releases=6)
    changed = run()
    assert changed["reading"]["read"] > 0
    assert changed["filtering"]["of_this_call"] == changed["filtering"]["questions"]
    assert before and not before & {path.name for path in work.glob("*-*.json*")}


def test_outcomes_are_tried_again_when_they_broke_or_a_completer_has_come_or_the_text_is_another(
    run, benchmark, tmp_path
):
    run()
    store = GraphStore(tmp_path / "work" / GRAPH)
    index = PageIndex(store)
    verification = Verification(Graph(store), store, index)
    questions = read_questions(next((tmp_path / "work").glob("drawn-*.jsonl")))[:2]
    log = tmp_path / "outcomes.jsonl"

    def outcomes(asked=questions, reasoner=None):
        filters = Filters(store, index, verification, reasoner=reasoner)
        return [(o.outcomes[CLOSED_BOOK], new) for o, new in benchmark.run_filters(filters, asked, log, 60.0)]

    broken = ScriptedCompleter(lambda request: EngineError("gone"))
    ignorant = ScriptedCompleter(lambda request: Message(role="assistant", content="no idea"))
    assert outcomes() == [(NOT_RUN, True)] * 2 and outcomes() == [(NOT_RUN, False)] * 2
    assert outcomes(reasoner=broken) == [("failed: gone", True)] * 2
    assert outcomes(reasoner=ignorant) == [(PASSED, True)] * 2
    assert outcomes() == outcomes(reasoner=broken) == [(PASSED, False)] * 2
    other = questions[0].model_copy(update={"text": questions[0].text + " Please."})
    assert outcomes([other, questions[1]]) == [(NOT_RUN, True), (PASSED, False)]
    assert [new for _, new in benchmark.run_filters(
        Filters(store, index, verification), [questions[0].model_copy(update={"text": "?"})], log, 0.0)] == []  # fmt: skip
