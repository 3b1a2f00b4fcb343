"""The family "search": questions about one set of pages, by split and index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from arcforge.core.errors import TaskError, UserError
from arcforge.core.protocols import Scorer
from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.code.running import forked
from arcforge.envs.search.grading import AnswerScorer
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.question import Question
from arcforge.envs.search.solver import demonstrate
from arcforge.envs.search.task import SearchTask
from arcforge.envs.search.tools import SearchTools
from arcforge.envs.single_turn import split_of
from arcforge.sandbox.fork import ForkServer

GRAPH, QUESTIONS = "graph.db", "questions.jsonl"


class SearchFamily:
    """Implements core.tasks.Family over a folder that holds a graph and its questions (benchmarks/search_env.py makes one).

    A question's split is told by its answer, so that no answer is in two splits. Index i is the i-th question of the split,
    and begins again after the last one. UserError when the folder has no questions; TaskError for a split without any.
    """

    def __init__(self, folder: Path, scorer: Scorer | None = None) -> None:
        if not (folder / GRAPH).is_file() or not (folder / QUESTIONS).is_file():
            raise UserError(f"{folder}: no {GRAPH} with {QUESTIONS} here; make them with benchmarks/search_env.py")
        self.name = "search"
        self._store = GraphStore(folder / GRAPH)
        questions = read_questions(folder / QUESTIONS)
        if not questions:
            raise UserError(f"{folder / QUESTIONS}: no question survived; give benchmarks/search_env.py more pages")
        self._tools = SearchTools(self._store, PageIndex(self._store))
        self._server = ForkServer()
        self._scorer = scorer or AnswerScorer()
        self._by_split: dict[str, list[Question]] = {}
        for question in questions:
            self._by_split.setdefault(split_of(question.chain[-1]), []).append(question)
        self.domains = tuple(sorted({question.kind for question in questions}))

    def questions(self, split: Split) -> Sequence[Question]:
        return self._by_split.get(split, ())

    def task(self, split: Split, index: int) -> SearchTask:
        questions = self.questions(split)
        if not questions:
            raise TaskError(f"search: there is no question of the split {split}")
        return SearchTask(
            questions[index % len(questions)], self._tools, self._scorer, self.name, sandboxes=forked(self._server)
        )

    def demonstration(self, index: int) -> Conversation:
        """A solved question of the train split; the next one that can be, when this one's pages cannot be found by search."""
        for further in range(len(self.questions("train"))):
            try:
                return demonstrate(self.task("train", index + further))
            except TaskError:
                continue
        raise TaskError("search: no question of the split train can be demonstrated")

    async def close(self) -> None:
        await self._server.close()
        self._store.close()


def read_questions(path: Path) -> list[Question]:
    """UserError for rows that are no questions of this version."""
    try:
        return [Question.model_validate(row) for row in read_jsonl(path)]
    except ValidationError:
        raise UserError(f"{path}: no questions of this version; make them anew with benchmarks/search_env.py") from None


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    atomic_write(path, "".join(json.dumps(q.model_dump(), ensure_ascii=False) + "\n" for q in questions))
