"""From folders of pages to verified multi-hop questions: the graph, the questions, the filters, and the yield of each.

    python benchmarks/search_env.py --folder /usr/share/doc --folder /usr/share/man --work runs/search --out result.json

WORK keeps graph.db and questions.jsonl (what the family "search" reads). A call that was ended goes on: pages that were read are
not read again, and the drawing and the outcomes of the filters are taken from WORK while the graph is the one they were made from.
Seconds of reading and filtering are of this call alone, those of drawing are of the call that drew. Filters that need a
completer are recorded as "not run"; a completer is handed to arcforge.envs.search.questions.filters.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.envs.search.family import GRAPH, QUESTIONS, read_questions, write_questions
from arcforge.envs.search.graph.build import update
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.graph.view import Graph
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.filters import Filters, Outcome, account, table
from arcforge.envs.search.questions.question import Question
from arcforge.envs.search.questions.synthesis import Synthesis
from arcforge.envs.search.questions.verification import Verification

DRAWN, OUTCOMES = "drawn", "outcomes"
SAMPLES = 10


def read_pages(store: GraphStore, arguments: argparse.Namespace) -> dict[str, Any]:
    began, cpu = time.monotonic(), _cpu()
    report = update(store, arguments.folder, arguments.skip, _progress("pages"), 60 * arguments.reading_minutes)
    return {**report.model_dump(), **_spent(began, cpu), "pages": store.count("pages")}


def _progress(what: str):
    return lambda done, total: print(f"{what}: {done} of {total}", flush=True)


def _cpu() -> float:
    return sum(os.times()[:4])


def _spent(began: float, cpu: float) -> dict[str, float]:
    return {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu() - cpu, 1)}


def describe(graph: Graph, store: GraphStore) -> dict[str, Any]:
    merged = store.db.execute("select count(*) from nodes where node != entity").fetchone()[0]
    return {
        "entities": len(graph.entities),
        "relations": len(graph.edges),
        "facts": store.count("facts"),
        "names_aligned_to_another": merged,
        "entities_by_kind": dict(Counter(map(graph.kind, graph.entities)).most_common()),
        "relations_by_name": dict(Counter(relation for _, relation, _ in graph.edges).most_common(30)),
    }


def fingerprint(store: GraphStore) -> str:
    """What questions and outcomes depend on: the pages, as the rules read them, and the graph that follows from them."""
    digest = hashlib.blake2b(digest_size=8)
    for query in ("select page, digest from pages", "select * from nodes", "select * from edges"):
        for row in sorted(store.db.execute(query)):
            digest.update(repr(row).encode())
    return digest.hexdigest()


def forget_other_graphs(work: Path, graph_id: str) -> None:
    """Remove drawings and outcomes of a graph that is no more."""
    for path in [*work.glob(f"{DRAWN}-*"), *work.glob(f"{OUTCOMES}-*")]:
        if not path.name.startswith((f"{DRAWN}-{graph_id}", f"{OUTCOMES}-{graph_id}")):
            path.unlink()


def drawn(
    graph: Graph, store: GraphStore, work: Path, graph_id: str, seed: int, most: int
) -> tuple[list[Question], dict[str, Any]]:
    """(questions, account of the drawing), from WORK when this graph was drawn from with this seed and this number."""
    name = f"{DRAWN}-{graph_id}-seed{seed}-most{most}"
    rows, told = work / f"{name}.jsonl", work / f"{name}.json"
    if told.exists():  # written last: the questions are whole
        return read_questions(rows), json.loads(told.read_text())
    began, cpu = time.monotonic(), _cpu()
    synthesis = Synthesis(graph, store, random.Random(seed))
    questions = draw(synthesis, most)
    account_of_it = {
        "seeds": synthesis.seeds,
        "questions": len(questions),
        "walks_that_failed": dict(synthesis.reasons.most_common()),
        **_spent(began, cpu),
    }
    write_questions(rows, questions)
    atomic_write(told, json.dumps(account_of_it))
    return questions, account_of_it


def draw(synthesis: Synthesis, most: int) -> list[Question]:
    questions = []
    for question in synthesis:
        questions.append(question)
        if len(questions) % 500 == 0:
            print(f"questions: {len(questions)}", flush=True)
        if len(questions) == most:
            break
    return questions


def run_filters(
    filters: Filters, questions: list[Question], log: Path, seconds: float
) -> Iterator[tuple[Outcome, bool]]:
    """(outcome, whether this call found it) in the order of the questions; those of an earlier call are from the log.

    What broke then is tried again, and so is a question of another text, or one of which a filter was not run that now can be.
    """
    known = {(row["text"], row["outcome"]["question_id"]): row["outcome"] for row in read_jsonl(log)}
    deadline = time.monotonic() + seconds
    for question in questions:
        row = known.get((question.text, question.question_id))
        outcome = None if row is None else Outcome.model_validate(row)
        if outcome is not None and not outcome.broke and outcome.not_run <= filters.lacking:
            yield outcome, False
            continue
        if time.monotonic() >= deadline:
            return
        outcome = asyncio.run(filters.run(question))
        with log.open("a") as file:
            row = {"text": question.text, "outcome": outcome.model_dump()}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        yield outcome, True


def samples(survivors: list[Question], rng: random.Random) -> list[dict[str, Any]]:
    """Spread over the kinds of answers."""
    by_kind: dict[str, list[Question]] = {}
    for question in rng.sample(survivors, len(survivors)):
        by_kind.setdefault(question.kind, []).append(question)
    rounds = [kind[at] for at in range(SAMPLES) for kind in by_kind.values() if at < len(kind)]
    return [
        {"question": q.text, "answer": q.answer, "aliases": q.aliases[:3], "pages": q.pages} for q in rounds[:SAMPLES]
    ]


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, action="append", required=True, help="a folder of pages; may be repeated"
    )
    parser.add_argument("--skip", action="append", default=[], help="pattern of page ids to leave out; may be repeated")
    parser.add_argument("--questions", type=int, default=5000, help="draw at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reading-minutes", type=float, default=600.0, help="read no further page after this time")
    parser.add_argument(
        "--filter-minutes", type=float, default=600.0, help="filter no further question after this time"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/search"))
    parser.add_argument("--out", type=Path, default=Path("result.json"))
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(words)
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = GraphStore(arguments.work / GRAPH)
    reading = read_pages(store, arguments)
    print(json.dumps(reading), flush=True)
    graph, graph_id = Graph(store), fingerprint(store)
    forget_other_graphs(arguments.work, graph_id)
    questions, drawing = drawn(graph, store, arguments.work, graph_id, arguments.seed, arguments.questions)
    print(json.dumps(drawing), flush=True)
    began, cpu = time.monotonic(), _cpu()
    index = PageIndex(store)
    filters = Filters(store, index, Verification(graph, store, index))
    log = arguments.work / f"{OUTCOMES}-{graph_id}.jsonl"
    run = list(run_filters(filters, questions, log, 60 * arguments.filter_minutes))
    outcomes, of_this_call = [outcome for outcome, _ in run], sum(new for _, new in run)
    kept = {outcome.question_id for outcome in outcomes if outcome.survives}
    survivors = [question for question in questions if question.question_id in kept]
    write_questions(arguments.work / QUESTIONS, survivors)
    counts = account(outcomes)
    result = {
        "reading": reading, "graph": describe(graph, store), "drawing": drawing,
        "filtering": {"questions": len(outcomes), "of_this_call": of_this_call, **_spent(began, cpu)},
        "filters": counts, "survivors": len(survivors),
        "survivors_by_kind": dict(Counter(q.kind for q in survivors).most_common()),
        "survivors_by_hops": dict(sorted(Counter(q.hops for q in survivors).items())),
        "survivors_by_evidence_pages": dict(sorted(Counter(len(q.pages) for q in survivors).items())),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load_average": os.getloadavg()[0]},
        "samples": samples(survivors, random.Random(arguments.seed)),
    }  # fmt: skip
    atomic_write(arguments.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    atomic_write(arguments.out.with_name("table.md"), table(counts))
    print(table(counts), f"{len(survivors)} of {len(outcomes)} survive", sep="")


if __name__ == "__main__":
    main()
