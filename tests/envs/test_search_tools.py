"""The search family: what the tools answer, how answers are graded, demonstrations, and the completer that reads pages."""

import asyncio
import json
import random

import pytest
from search_pages import PEOPLE, write_debian, write_proposals, write_sphinx

from arcforge.agents.loop import run_agent
from arcforge.agents.policies import KeepRecent
from arcforge.agents.toolset import Toolset
from arcforge.clients.scripted import ScriptedCompleter
from arcforge.core.errors import EngineError, JudgeError, TaskError, UserError
from arcforge.core.messages import Message, Sampling, ToolCall
from arcforge.core.protocols import Verdict
from arcforge.core.tasks import Family
from arcforge.envs import registry
from arcforge.envs.search.extract.relations import KINDS
from arcforge.envs.search.family import GRAPH, QUESTIONS, SearchFamily, write_questions
from arcforge.envs.search.grading import AnswerScorer, is_right
from arcforge.envs.search.graph.build import update
from arcforge.envs.search.graph.completer import CompleterExtraction, read_with_completer
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.question import Hop, Pattern
from arcforge.envs.search.questions.synthesis import Synthesis
from arcforge.envs.search.questions.wording import word
from arcforge.envs.search.solver import KeywordSolver, asked_kind, demonstrate, guess
from arcforge.envs.search.tools import PART_CHARS, SearchTools, split_parts
from arcforge.envs.selected import Selection


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of the family, made as the benchmark makes one."""
    root = tmp_path_factory.mktemp("family")
    write_debian(root / "doc", releases=8)
    write_sphinx(root / "doc" / "html")
    write_proposals(root / "doc" / "proposals")
    (root / "doc" / "long.txt").write_text("\n\n".join(f"Paragraph {n} of a long page. Marker{n}." for n in range(900)))
    store = GraphStore(root / GRAPH)
    update(store, [root / "doc"])
    write_questions(root / QUESTIONS, list(Synthesis(Graph(store), store, random.Random(0))))
    store.close()
    return root


@pytest.fixture(scope="module")
def family(made) -> Family:
    return SearchFamily(made)


@pytest.fixture(scope="module")
def tools(made):
    store = GraphStore(made / GRAPH)
    return SearchTools(store, PageIndex(store))


def call(tools, name, **arguments):
    return asyncio.run(Toolset(tools.tools).call(ToolCall(name=name, arguments=arguments)))


def test_search_finds_pages_by_words_and_by_what_they_are_called(tools):
    assert call(tools, "search", query="roots about roots").startswith("1. html/roots.html\n   roots — About roots\n")
    assert "roots.roots_1" in call(tools, "search", query="roots_1")
    assert "libelm/copyright" in call(tools, "search", query="libelm copyright license")
    assert call(tools, "search", query="zyzzyva") == "no results"
    assert call(tools, "search", query="") == "no results"


def test_open_gives_a_page_in_parts_that_join_to_the_page(tools):
    first = call(tools, "open", page="long.txt")
    header, _, text = first.partition("\n")
    count = int(header.removesuffix(")").rpartition(" ")[2])
    assert header == f"long.txt (part 1 of {count})" and count > 5 and len(text) <= PART_CHARS
    parts = [call(tools, "open", page="long.txt", part=n + 1).partition("\n")[2] for n in range(count)]
    assert "".join(parts) == "\n\n".join(f"Paragraph {n} of a long page. Marker{n}." for n in range(900))
    assert call(tools, "open", page="long.txt", part=count + 1) == f"the page has parts 1 to {count}"
    assert call(tools, "open", page="long.txt", part=0) == f"the page has parts 1 to {count}"
    assert call(tools, "open", page="long.txt", part="2").partition("\n")[2] == parts[1]
    assert call(tools, "open", page="nowhere") == "no such page"


def test_a_line_longer_than_a_part_is_cut_and_nothing_is_lost():
    text = "x" * (3 * PART_CHARS + 7)
    assert "".join(split_parts(text)) == text and len(split_parts(text)) == 4


def test_find_tells_the_part_and_the_surroundings(tools):
    answer = call(tools, "find", page="long.txt", text="marker700")
    part = int(answer.removeprefix("part ").partition(":")[0])
    assert "Paragraph 700 of a long page. Marker700." in answer
    assert "Marker700" in call(tools, "open", page="long.txt", part=part)
    assert call(tools, "find", page="long.txt", text="of a long page").endswith("and 892 more places")
    assert call(tools, "find", page="long.txt", text="absent") == "not found"
    assert call(tools, "find", page="nowhere", text="x") == "no such page"


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("fly", {}, "no tool fly; there are search, open, find"),
        ("search", {}, "bad arguments for search: query: Field required"),
        ("search", {"query": ["x"]}, "bad arguments for search: query: Input should be a valid string"),
        ("open", {"page": "long.txt", "part": None}, "bad arguments for open: part: Input should be a valid integer"),
        ("open", {"page": "long.txt", "where": "x"}, "bad arguments for open: where: Extra inputs are not permitted"),
        ("find", {"page": "long.txt", "text": " "}, "the text to find is empty"),
    ],
)
def test_mistakes_of_the_model_are_answered(tools, name, arguments, answer):
    assert call(tools, name, **arguments) == answer


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("Explanation: see there.\nExact Answer: Ondřej Surý\nConfidence: 90%", True),
        ("**Exact Answer:** ondrej sury.", True),
        ("the Ondrej  Sury", True),
        ("Exact Answer: O. Surý", True),
        ("Exact Answer: nobody\nExact Answer: Ondrej Sury", True),
        ("Exact Answer: Ondrej Sury or Ada Quint", False),
        ("It is not Ondrej Sury", False),
        ("Exact Answer: ", False),
        ("", False),
    ],
)
def test_grading_normalises_and_knows_aliases(reply, right):
    assert is_right(reply, ["Ondřej Surý", "O. Surý"]) == right


def test_brackets_and_calls_are_the_same_answer():
    assert is_right("Exact Answer: <sys/tree.h>", ["sys/tree.h"]) and is_right("`os.fork()`", ["os.fork"])


def test_an_episode_is_graded_and_a_conversation_without_an_answer_earns_nothing(family):
    task = family.task("train", 0)

    async def go(replies):
        episode = await task.open()
        run = await run_agent(task, episode, ScriptedCompleter(replies), KeepRecent(5), Sampling(), session="x")
        return run, await episode.grade(run.messages)

    search = Message(role="assistant", tool_calls=(ToolCall(name="search", arguments={"query": "bark"}, id="1"),))
    right = Message(role="assistant", content=f"Exact Answer: {task.question.answer}")
    run, verdict = asyncio.run(go([search, right]))
    assert verdict.reward == 1.0 and verdict.details["tool_calls"] == 1 and "1. " in run.messages[3].content
    assert asyncio.run(go([search, Message(role="assistant", content="no idea")]))[1].reward == 0.0
    episode = asyncio.run(task.open())
    assert asyncio.run(episode.grade([*task.messages, search])).reward == 0.0


def test_another_judge_can_be_handed_in_and_its_failure_is_no_score(made):
    class Lenient:
        async def score(self, messages, reference):
            if "broken" in messages[-1].content:
                raise JudgeError("no verdict")
            return Verdict(reward=0.5, details={"asked": reference["question"], "answer": reference["answer"]})

    task = SearchFamily(made, scorer=Lenient()).task("train", 0)
    episode = asyncio.run(task.open())
    verdict = asyncio.run(episode.grade([Message(role="assistant", content="perhaps")]))
    assert verdict.reward == 0.5 and verdict.details["asked"] == task.question.text
    with pytest.raises(JudgeError):
        asyncio.run(episode.grade([Message(role="assistant", content="broken")]))
    with pytest.raises(TaskError):
        asyncio.run(AnswerScorer().score([Message(role="assistant", content="x")], {}))


def test_splits_share_no_answer_and_indices_go_round(family):
    answers = {split: {q.chain[-1] for q in family.questions(split)} for split in ("train", "dev", "test")}
    assert (
        answers["train"]
        and not answers["train"] & (answers["dev"] | answers["test"])
        and not answers["dev"] & answers["test"]
    )
    count = len(family.questions("train"))
    assert family.task("train", count + 2).question == family.task("train", 2).question


def test_demonstrations_find_every_page_before_they_read_it_and_end_right(family):
    episode = asyncio.run(family.task("train", 0).open())
    for index in range(5):
        conversation = family.demonstration(index)
        found = set()
        for said, answer in zip(conversation.messages[2:-1:2], conversation.messages[3:-1:2]):
            (asked,) = said.tool_calls
            assert answer.content == asyncio.run(episode.call(asked))
            if asked.name == "search":
                found |= {line.partition(". ")[2] for line in answer.content.split("\n") if line[:1].isdigit()}
            else:
                assert asked.arguments["page"] in found and answer.content.startswith("part ")
        question = next(q for q in family.questions("train") if q.text == conversation.messages[1].content)
        assert is_right(conversation.messages[-1].content, [question.answer])
        assert set(question.pages) <= found


def test_a_demonstration_whose_pages_cannot_be_found_is_refused(family):
    task = family.task("train", 0)
    gone = task.question.evidence[0].model_copy(update={"page": "long.txt"})
    with pytest.raises(TaskError, match=r"no search finds long\.txt"):
        demonstrate(type(task)(task.question.model_copy(update={"evidence": (gone,)}), task.search_tools))


def test_the_keyword_solver_uses_the_tools_and_answers_in_form(family):
    task = family.task("train", 1)

    async def go():
        episode = await task.open()
        return await run_agent(task, episode, KeywordSolver(), KeepRecent(9), Sampling(), session="x")

    run = asyncio.run(go())
    assert run.stop_reason == "finished" and 4 <= run.tool_calls <= 6 and "Exact Answer: " in run.messages[-1].content


def test_a_guess_is_a_name_of_the_asked_kind_that_the_question_does_not_have():
    question = "There is a page: grow(2) lists it. What is this manual page called? Write the answer as name(section)."
    assert guess(question, ["grow(2) and fell(2), also prune(1)", "fell(2)"]) == "fell(2)"
    assert guess("What is this person called?", ["by Ada Quint", "by Ada Quint and Ivo Zoll"]) == "Ada Quint"
    assert guess("What is this vulnerability called?", ["nothing"]) == "unknown"
    assert guess("What is the second bug called?", ["closes #123456 and #12"]) == "#123456"


@pytest.mark.parametrize("kind", KINDS)
def test_the_solver_knows_the_kind_that_a_question_asks_for(kind):
    hops = (Hop(relation="links_to", forward=True),)
    assert asked_kind(word(Pattern(kinds=("page", kind), hops=hops, clues=()))) == kind
    assert asked_kind(word(Pattern(kinds=(kind, kind), hops=hops, clues=()))) == kind


def test_the_registry_opens_a_folder_and_tasks_say_its_name(made, tmp_path):
    name = f"search:{made}"
    opened = registry.family(name)
    task = opened.task("train", 3)
    assert opened.name == task.family == opened.demonstration(0).family == name
    assert task.messages == SearchFamily(made).task("train", 3).messages
    selection = Selection(family=name, seed=0, split="train", indices=(3,))
    (tmp_path / "kept.json").write_text(selection.model_dump_json())
    kept = registry.family(f"selected:{tmp_path / 'kept.json'}").task("train", 0)
    assert kept.task_id == task.task_id and kept.tools == task.tools
    for wrong in ("search", "search:"):
        with pytest.raises(UserError, match=r"with a path one of .*, search:FOLDER"):
            registry.family(wrong)
    with pytest.raises(UserError, match=r"nowhere: no graph\.db"):
        registry.family(f"search:{tmp_path / 'nowhere'}")


def test_a_folder_without_questions_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no graph\.db"):
        SearchFamily(tmp_path)
    GraphStore(tmp_path / GRAPH).close()
    with pytest.raises(UserError, match=r"no graph\.db with questions\.jsonl"):
        SearchFamily(tmp_path)
    (tmp_path / QUESTIONS).write_text("")
    with pytest.raises(UserError, match="no question survived"):
        SearchFamily(tmp_path)
    (tmp_path / QUESTIONS).write_text('{"question": "of another shape"}\n')
    with pytest.raises(UserError, match="no questions of this version"):
        SearchFamily(tmp_path)


def relation(**changes):
    row = {
        "subject": "Proposal number 3", "subject_kind": "proposal", "relation": "author", "object": PEOPLE[3],
        "object_kind": "person", "evidence": "",
    }  # fmt: skip
    return {**row, **changes}


def test_a_completers_relations_are_taken_only_as_the_page_bears_them_out(tmp_path):
    text = (
        f"A note. Proposal number 3 was written by {PEOPLE[3]} in one night. {PEOPLE[4]} wrote Proposal number 4. "
        + "More. " * 20
    )
    (tmp_path / "note.txt").write_text(text)
    good = f"Proposal number 3 was written by {PEOPLE[3]} in one night."
    turned = f"{PEOPLE[4]} wrote Proposal number 4."
    rows = [
        relation(evidence=good),
        relation(subject=PEOPLE[4], subject_kind="person", relation="wrote", object="Proposal number 4", object_kind="proposal",
                 evidence=turned),
        relation(evidence=f"Proposal number 3 is by {PEOPLE[3]}."),
        relation(evidence=good, object=PEOPLE[5]),
        {"subject": "x"}, "text", relation(evidence=good, relation="r" * 99),
    ]  # fmt: skip
    store = GraphStore()
    update(store, [tmp_path])
    extraction = CompleterExtraction(
        ScriptedCompleter(lambda request: Message(role="assistant", content=json.dumps({"relations": rows})))
    )
    assert asyncio.run(read_with_completer(store, extraction)) == {"asked": 1}
    graph = Graph(store)
    written = {(graph.text(s), graph.text(o)) for s, r, o in graph.edges if r == "written_by"}
    assert written == {("Proposal number 3", PEOPLE[3]), ("Proposal number 4", PEOPLE[4])}
    assert extraction.rejected == {
        "evidence that is not on the page": 1, "evidence that does not name both": 1, "a relation of another shape": 2,
        "too long": 1,
    }  # fmt: skip


def test_bad_answers_are_counted_and_failed_calls_are_asked_again(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"Page {name} " + "says quite a few words and no more. " * 5)
    store = GraphStore()
    update(store, [tmp_path])
    answers = iter(
        [Message(role="assistant", content="Sure! {}"), EngineError("gone"), Message(role="assistant", content="[]")]
    )
    extraction = CompleterExtraction(ScriptedCompleter(lambda request: next(answers)))
    assert asyncio.run(read_with_completer(store, extraction)) == {"asked": 2, "failed": 1}
    assert extraction.rejected == {"not JSON": 1, "not the object asked for": 1}
    later = ScriptedCompleter(lambda request: Message(role="assistant", content='{"relations": []}'))
    assert asyncio.run(read_with_completer(store, CompleterExtraction(later))) == {"asked": 1}
    assert "Page b" in later.requests[0].messages[0].content


async def _called(episode, call):
    try:
        return await episode.call(call)
    finally:
        await episode.close()


def test_an_agent_is_offered_the_tools_of_the_report_and_each_is_answered(family):
    """Called as its specification says, in an episode of its own."""
    task = family.task("train", 0)
    page = task.question.pages[0]
    values = {"query": page, "page": page, "part": 1, "text": page[:1], "code": "print(6 * 7)"}
    answers = {}
    for spec in task.tools:
        given = {name: values[name] for name in spec.parameters["properties"]}
        episode = asyncio.run(task.open())
        answers[spec.name] = asyncio.run(_called(episode, ToolCall(name=spec.name, arguments=given)))
    assert list(answers) == ["search", "open", "find", "python"] and answers["python"] == "42\n"
    assert page in answers["search"] and answers["open"].startswith(f"{page} (part 1 of ")
    assert answers["find"].startswith("part 1: ...")
