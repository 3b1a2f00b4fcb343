"""The three filters of GLM-5's search data (report, section 4.2.3), and the account of what each of them rejected.

(a) closed book: right without tools in one of several tries. (b) few steps: solved by a short run with the tools, or the
answer stands on the pages that the question's own words find. (c) verification, in `verification.py`. A filter that needs
a completer and has none is "not run", never passed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import partial

from arcforge.agents.loop import AgentRun, Finished, Malformed, OutOfTokens, run_agent
from arcforge.agents.policies import KeepAll
from arcforge.core.errors import BoundaryError
from arcforge.core.messages import Message, Sampling, Thinking, Value
from arcforge.core.protocols import Completer, CompletionRequest, Verdict
from arcforge.envs.search.grading import is_right
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.index import PageIndex
from arcforge.envs.search.questions.question import Question
from arcforge.envs.search.questions.verification import Verification, fits_prompt, read_fits
from arcforge.envs.search.solver import KeywordSolver
from arcforge.envs.search.task import SearchTask
from arcforge.envs.search.tools import SearchTools

TRIES = 8
FEW_STEPS = 8
TOP_PAGES = 3
CLOSED_BOOK, KEYWORDS, AGENT, VERIFIED, SECOND_OPINION = (
    "closed book",
    "keywords",
    "few steps",
    "verification",
    "verifier",
)
PASSED, NOT_RUN, FAILED = "passed", "not run", "failed"
_ASK = "Answer from memory, in one line, with the short answer and nothing else.\n\n"


class Outcome(Value):
    """outcomes: filter to "passed", "not run", "failed: ..." (its machinery broke) or the reason of the rejection.

    candidates: the answers that the agent's short run gave.
    """

    question_id: str
    outcomes: dict[str, str]
    candidates: tuple[str, ...] = ()

    @property
    def survives(self) -> bool:
        """Nothing rejected it and nothing broke; filters that were not run say nothing."""
        return all(told in (PASSED, NOT_RUN) for told in self.outcomes.values())

    @property
    def broke(self) -> bool:
        """A filter's machinery failed: another run may tell."""
        return any(told.startswith(FAILED) for told in self.outcomes.values())

    @property
    def not_run(self) -> frozenset[str]:
        """Names of the filters that had no completer."""
        return frozenset(name for name, told in self.outcomes.items() if told == NOT_RUN)


class Filters:
    """reasoner: answers without tools, for (a). agent: works with the tools, for (b) beside the keyword solver.

    verifier: reads the evidence for (c), beside the rules. Each may be None. A question stops at the first rejection.
    """

    def __init__(
        self,
        store: GraphStore,
        index: PageIndex,
        verification: Verification,
        reasoner: Completer | None = None,
        agent: Completer | None = None,
        verifier: Completer | None = None,
    ) -> None:
        self._store, self._index, self._verification = store, index, verification
        self._reasoner, self._agent, self._verifier = reasoner, agent, verifier
        self._tools = SearchTools(store, index)

    @property
    def lacking(self) -> frozenset[str]:
        """Names of the filters that cannot run for want of a completer."""
        needed = {CLOSED_BOOK: self._reasoner, AGENT: self._agent, SECOND_OPINION: self._verifier}
        return frozenset(name for name, completer in needed.items() if completer is None)

    async def run(self, question: Question) -> Outcome:
        outcomes: dict[str, str] = {}
        candidates: list[str] = []
        for name, judge in (
            (CLOSED_BOOK, partial(self._closed_book, question)), (KEYWORDS, partial(self._keywords, question)),
            (AGENT, partial(self._few_steps, question, candidates)), (VERIFIED, partial(self._verify, question)),
            (SECOND_OPINION, partial(self._ask_verifier, question, candidates)),
        ):  # fmt: skip
            try:
                outcomes[name] = await judge()
            except BoundaryError as error:
                outcomes[name] = f"{FAILED}: {error}"
            if outcomes[name] not in (PASSED, NOT_RUN):
                break
        return Outcome(question_id=question.question_id, outcomes=outcomes, candidates=tuple(candidates))

    async def _closed_book(self, question: Question) -> str:
        if self._reasoner is None:
            return NOT_RUN
        for seed in range(TRIES):
            request = CompletionRequest(
                messages=(Message(role="user", content=_ASK + question.text),),
                sampling=Sampling(max_tokens=2048, seed=seed),
            )
            completion = await self._reasoner.complete(request)
            if is_right(completion.message.content, (question.answer, *question.aliases)):
                return "right without tools"
        return PASSED

    async def _keywords(self, question: Question) -> str:
        for page in self._index.best_pages(question.text, TOP_PAGES):
            if any(names(self._store.text(page), answer) for answer in (question.answer, *question.aliases)):
                return f"the answer is on one of the {TOP_PAGES} best pages"
        verdict, _ = await self._attempt(question, KeywordSolver())
        return "guessed by keywords" if verdict.reward == 1.0 else PASSED

    async def _few_steps(self, question: Question, candidates: list[str]) -> str:
        if self._agent is None:
            return NOT_RUN
        verdict, run = await self._attempt(question, self._agent)
        given = verdict.details.get("given")
        if run.stop_reason in (Malformed.stop_reason, OutOfTokens.stop_reason):
            return f"{FAILED}: the agent's run ended as {run.stop_reason}"
        if run.stop_reason == Finished.stop_reason and not given:
            return f"{FAILED}: the agent ended without an answer"
        if given:
            candidates.append(given)
        return f"solved in {FEW_STEPS} turns" if verdict.reward == 1.0 else PASSED

    async def _attempt(self, question: Question, completer: Completer) -> tuple[Verdict, AgentRun]:
        task = SearchTask(question, self._tools, max_turns=FEW_STEPS)
        episode = await task.open()
        run = await run_agent(
            task, episode, completer, KeepAll(), Sampling(temperature=0.0), session=question.question_id
        )
        return await episode.grade(run.messages), run

    async def _verify(self, question: Question) -> str:
        return self._verification.problem(question) or PASSED

    async def _ask_verifier(self, question: Question, candidates: list[str]) -> str:
        """Whether the evidence bears the answer out, and bears out none of the other candidates."""
        if self._verifier is None:
            return NOT_RUN
        if not await self._fits(self._verifier, question, question.answer):
            return "the verifier does not find the answer borne out"
        rights = (question.answer, *question.aliases)
        for candidate in candidates:
            if not is_right(candidate, rights) and await self._fits(self._verifier, question, candidate):
                return "the verifier finds another candidate borne out"
        return PASSED

    async def _fits(self, verifier: Completer, question: Question, candidate: str) -> bool:
        request = CompletionRequest(
            messages=(Message(role="user", content=fits_prompt(question, candidate)),),
            thinking=Thinking(enabled=False),
            sampling=Sampling(max_tokens=64, temperature=0.0),
        )
        completion = await verifier.complete(request)
        return read_fits(completion.message.content)


def names(text: str, answer: str) -> bool:
    """The text has the answer as whole words, whatever the case."""
    if answer.lower() not in text.lower():
        return False
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def account(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Filter to outcome to count. A question that an earlier filter rejected is not among the later ones."""
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for name, told in outcome.outcomes.items():
            found.setdefault(name, Counter())[FAILED if told.startswith(FAILED) else told] += 1
    return {name: dict(counts.most_common()) for name, counts in found.items()}


def table(counts: dict[str, dict[str, int]]) -> str:
    """Markdown: a line per filter and outcome."""
    lines = ["| filter | outcome | questions |", "|---|---|---:|"]
    for name, by_outcome in counts.items():
        lines += [f"| {name} | {told} | {count:,} |" for told, count in by_outcome.items()]
    return "\n".join(lines) + "\n"
