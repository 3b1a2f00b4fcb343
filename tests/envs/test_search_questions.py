"""Questions and filters over a small folder: unique answers, no overlap, and filters that reject what they must."""

import asyncio
import json
import random

import pytest
from search_pages import write_debian, write_proposals, write_sphinx

from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError
from arcforge.core.messages import Message
from arcforge.envs.search.graph.build import update
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.filters import (
    AGENT,
    CLOSED_BOOK,
    KEYWORDS,
    NOT_RUN,
    PASSED,
    SECOND_OPINION,
    TRIES,
    VERIFIED,
    Filters,
    account,
    table,
)
from arcforge.envs.search.questions.matching import matches
from arcforge.envs.search.questions.synthesis import Plan, Synthesis
from arcforge.envs.search.questions.verification import Verification


class World:
    def __init__(self, folder):
        self.folder = folder
        write_debian(folder, releases=8)
        write_sphinx(folder / "html")
        write_proposals(folder / "proposals")
        self.store = GraphStore()
        self.read()
        self.questions = list(Synthesis(self.graph, self.store, random.Random(0)))

    def read(self):
        update(self.store, [self.folder])
        self.graph, self.index = Graph(self.store), PageIndex(self.store)
        self.verification = Verification(self.graph, self.store, self.index)

    def run(self, question, **completers):
        return asyncio.run(Filters(self.store, self.index, self.verification, **completers).run(question))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world") / "doc")


def test_questions_have_one_answer_and_their_evidence(world):
    assert len(world.questions) >= 20
    for question in world.questions:
        assert matches(world.graph, question.pattern) == [question.chain]
        assert 2 <= question.hops <= 4 and len(question.chain) == question.hops + 1
        assert world.graph.text(question.chain[-1]) == question.answer
        assert len({item.page for item in question.evidence if not item.is_clue}) >= 2
        for item in question.evidence:
            assert item.text and world.store.text(item.page)[item.start : item.end] == item.text
        least, most = Plan().seed_degrees
        assert least <= world.graph.degrees[question.chain[-1]] <= most


def test_the_text_names_no_node_of_the_chain(world):
    for question in world.questions:
        for entity in question.chain:
            name = world.graph.text(entity)
            assert len(name) <= 3 or name.casefold() not in question.text.casefold()
        assert "called?" in question.text


def test_no_two_questions_share_an_answer_or_an_edge(world):
    answers = [question.chain[-1] for question in world.questions]
    edges = [edge for question in world.questions for edge in question.chain_edges]
    assert len(answers) == len(set(answers)) and len(edges) == len(set(edges))


def test_questions_are_repeatable(world):
    again = list(Synthesis(world.graph, world.store, random.Random(0)))
    assert again == world.questions
    assert list(Synthesis(world.graph, world.store, random.Random(1))) != world.questions


def survivor(world):
    return next(q for q in world.questions if world.run(q).survives)


def test_filters_without_completers_are_not_run(world):
    outcome = world.run(survivor(world))
    assert outcome.outcomes == {
        CLOSED_BOOK: NOT_RUN, KEYWORDS: PASSED, AGENT: NOT_RUN, VERIFIED: PASSED, SECOND_OPINION: NOT_RUN,
    }  # fmt: skip


def test_a_question_answered_from_memory_once_in_eight_tries_is_rejected(world):
    question = survivor(world)
    tries = iter(range(TRIES))
    knows = ScriptedCompleter(
        lambda request: Message(role="assistant", content=question.answer if next(tries) == TRIES - 1 else "no idea")
    )
    outcome = world.run(question, reasoner=knows)
    assert outcome.outcomes == {CLOSED_BOOK: "right without tools"} and not outcome.survives
    assert len(knows.requests) == TRIES and all(not request.tools for request in knows.requests)
    ignorant = ScriptedCompleter(lambda request: Message(role="assistant", content="no idea"))
    assert world.run(question, reasoner=ignorant).outcomes[CLOSED_BOOK] == PASSED


def test_a_completer_that_breaks_is_neither_passed_nor_a_rejection(world):
    broken = ScriptedCompleter(lambda request: EngineError("the server is gone"))
    outcome = world.run(survivor(world), reasoner=broken)
    assert outcome.outcomes == {CLOSED_BOOK: "failed: the server is gone"} and not outcome.survives


def test_a_question_that_an_agent_solves_in_few_turns_is_rejected(world):
    question = survivor(world)
    clever = ScriptedCompleter([Message(role="assistant", content=f"Exact Answer: {question.answer}")])
    assert world.run(question, agent=clever).outcomes[AGENT].startswith("solved in")
    wrong = ScriptedCompleter([Message(role="assistant", content="Exact Answer: nobody")])
    outcome = world.run(question, agent=wrong)
    assert outcome.outcomes[AGENT] == PASSED and outcome.candidates == ("nobody",)


def test_an_agent_that_ends_without_an_answer_is_neither_passed_nor_a_rejection(world):
    silent = ScriptedCompleter([Message(role="assistant", content="")])
    outcome = world.run(survivor(world), agent=silent)
    assert outcome.outcomes[AGENT] == "failed: the agent ended without an answer" and not outcome.survives


def test_an_answer_on_the_best_pages_is_rejected(world):
    question = survivor(world)
    best = world.index.search(question.text, 1)[0].page
    word = next(w for w in world.store.text(best).split() if w.isalpha() and len(w) > 4)
    easy = question.model_copy(update={"answer": word})
    assert "best pages" in world.run(easy).outcomes[KEYWORDS]


def test_the_verifier_confirms_the_answer_and_no_other_candidate(world):
    question = survivor(world)

    def run(fits):
        wrong = ScriptedCompleter([Message(role="assistant", content="Exact Answer: Somebody Else")])
        verifier = ScriptedCompleter(
            lambda request: Message(role="assistant", content=json.dumps({"fits": fits(request)}))
        )
        return world.run(question, agent=wrong, verifier=verifier).outcomes[SECOND_OPINION]

    def asks_of_the_answer(request):
        data = json.loads(request.messages[0].content.rpartition("\n\n")[2])
        return data["candidate"] == question.answer

    assert run(asks_of_the_answer) == PASSED
    assert "another candidate" in run(lambda request: True)
    assert "does not find" in run(lambda request: False)
    vague = ScriptedCompleter(lambda request: Message(role="assistant", content="Yes, it fits."))
    assert world.run(question, verifier=vague).outcomes[SECOND_OPINION].startswith("failed")


def test_evidence_that_left_the_pages_is_rejected(world):
    question = survivor(world)
    item = question.evidence[0]
    moved = item.model_copy(update={"text": "Something that no page says."})
    bent = question.model_copy(update={"evidence": (moved, *question.evidence[1:])})
    assert world.run(bent).outcomes[VERIFIED] == "the evidence is not in the pages"


def test_a_wrong_label_and_missing_clues_are_rejected(world):
    question = survivor(world)
    other = next(q for q in world.questions if q.kind == question.kind and q.chain[-1] != question.chain[-1])
    wrong = question.model_copy(update={"chain": (*question.chain[:-1], other.chain[-1])})
    assert world.verification.problem(wrong) == "the graph gives another answer"
    problems = {world.verification.problem(q.model_copy(update={"pattern": q.pattern.model_copy(
        update={"clues": q.pattern.clues[:1]})})) for q in world.questions}  # fmt: skip
    assert "the graph gives several answers" in problems
    elsewhere = question.model_copy(update={"chain": (other.chain[0], *question.chain[1:])})
    assert other.chain[0] != question.chain[0]
    assert world.verification.problem(elsewhere) == "the answer does not lead back to its beginning alone"


def test_a_question_of_an_older_graph_is_held_to_the_pages_of_today(tmp_path):
    world = World(tmp_path / "doc")
    questions = [q for q in world.questions if world.verification.problem(q) == ""]
    page = next(item.page for item in questions[0].evidence if not item.is_clue)
    file = world.folder / page

    def told_of_those_on_the_page(reason):
        world.read()
        problems = {q.question_id: world.verification.problem(q) for q in questions}
        assert problems == {q.question_id: reason if page in q.pages else "" for q in questions}

    assert 0 < sum(page in q.pages for q in questions) < len(questions)
    text = file.read_text()
    file.write_text(f"A line that moves what stands below it.\n\n{text}")
    told_of_those_on_the_page("the evidence is not in the pages")
    file.unlink()
    told_of_those_on_the_page("the graph gives no answer")
    file.write_text(text)
    told_of_those_on_the_page("")


def test_the_yield_table_counts_each_filter(world):
    outcomes = [world.run(question) for question in world.questions[:12]]
    counts = account(outcomes)
    assert counts[CLOSED_BOOK] == {NOT_RUN: 12} and sum(counts[KEYWORDS].values()) == 12
    assert sum(counts[VERIFIED].values()) == counts[KEYWORDS].get(PASSED, 0)
    assert f"| {CLOSED_BOOK} | not run | 12 |" in table(counts)
