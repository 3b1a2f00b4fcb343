"""Solvers without a model, as Completers: one that knows only the question, and one that knows the evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.core.tasks import Conversation
from arcforge.envs.search.extract.debian_rules import BUG, CVE
from arcforge.envs.search.extract.people import people
from arcforge.envs.search.extract.relations import KINDS, noun
from arcforge.envs.search.extract.sphinx_rules import STANDARD
from arcforge.envs.search.questions.question import Evidence, Question
from arcforge.envs.search.questions.wording import ORDINALS
from arcforge.envs.search.task import SearchTask
from arcforge.rewards.reply import last_request

SEARCHES, OPENED = 3, 3
_HIT = re.compile(r"^\d+\. (\S.*)$", re.MULTILINE)
_SHAPES: dict[str, re.Pattern[str]] = {
    "manual page": re.compile(r"[\w.+:-]+\(\d\w*\)"),
    "header": re.compile(r"[\w/+.-]+\.h\b"),
    "variable": re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b"),
    "CVE": CVE,
    "bug": BUG,
    "PEP": STANDARD,
    "file": re.compile(r"(?:~|\$HOME)?/[\w.~/+-]*\w"),
    "release": re.compile(r"[a-z0-9][a-z0-9+.-]+ \(?\d[\w.+~:-]+"),
    "Python name": re.compile(r"\b[A-Za-z_]\w*(?:\.\w+)+"),
    "Python module": re.compile(r"\b[a-z_]\w*(?:\.[a-z_]\w*)*\b"),
    "C name": re.compile(r"\b_?Py\w+"),
}
_ASKED = re.compile(rf"What is (?:this|the (?:{'|'.join(ORDINALS)})) ([^?]+?) called\?")
_ANYTHING = re.compile(r"[\w+.-]{3,}")


class KeywordSolver:
    """Knows nothing but the question and what a name of the asked kind looks like.

    It searches with the whole question, then with its sentences, opens the pages that came first, and answers with the name
    that most of what it saw has and the question has not. After SEARCHES searches it opens OPENED pages.
    """

    async def complete(self, request: CompletionRequest) -> Completion:
        question = last_request(request.messages)
        results = [message.content for message in request.messages if message.role == "tool"]
        call = self._next_call(question, results)
        if call is None:
            answer = guess(question, results)
            return _said(
                Message(
                    role="assistant", content=f"Explanation: seen most often.\nExact Answer: {answer}\nConfidence: 10%"
                )
            )
        return _said(Message(role="assistant", tool_calls=(call,)))

    def _next_call(self, question: str, results: Sequence[str]) -> ToolCall | None:
        queries = [question, *re.split(r"(?<=[.;]) ", question)[: SEARCHES - 1]]
        done = len(results)
        if done < len(queries):
            return ToolCall(name="search", arguments={"query": queries[done]}, id=str(done))
        pages = list(dict.fromkeys(page for result in results[: len(queries)] for page in _HIT.findall(result)[:2]))
        at = done - len(queries)
        if at < min(OPENED, len(pages)):
            return ToolCall(name="open", arguments={"page": pages[at]}, id=str(done))
        return None


def guess(question: str, results: Sequence[str]) -> str:
    """The name of the asked kind that is in most of the results and not in the question; "unknown" when there is none."""
    kind = asked_kind(question)
    seen: Counter[str] = Counter()
    for result in results:
        seen.update({name for name in _names(kind, result) if name.casefold() not in question.casefold()})
    best = min(seen, key=lambda name: (-seen[name], -sum(r.count(name) for r in results), name), default="")
    return best.replace(" (", " ").rstrip(")") if best and kind == "release" else best or "unknown"


def asked_kind(question: str) -> str:
    """The kind of entity that a question of `wording.py` asks for; empty for other questions."""
    match = _ASKED.search(question)
    return next((kind for kind in KINDS if match and noun(kind) == match[1]), "")


def _names(kind: str, text: str) -> list[str]:
    if kind == "person":
        return [name for name, _, _ in people(text, 0, len(text))]
    return _SHAPES.get(kind, _ANYTHING).findall(text)


def _said(message: Message) -> Completion:
    return Completion(message=message, finish_reason="tool_calls" if message.tool_calls else "stop")


def demonstrate(task: SearchTask) -> Conversation:
    """The question solved along its evidence, every tool answer real. A page is only read after a search found it.

    TaskError when no search of what is known at that point finds a page of the evidence.
    """
    messages, seen = list(task.messages), set()
    for item in task.question.evidence:
        if item.page not in seen:
            _look_for(task, item, messages)
            seen.add(item.page)
        text = " ".join(item.text.split("\n")[0].split())[:60]
        _add_step(messages, "find", task.search_tools.find(item.page, text), page=item.page, text=text)
    messages.append(Message(role="assistant", content=_final(task.question)))
    return Conversation(
        messages=tuple(messages), tools=task.tools, thinking=task.thinking, family=task.family, domain=task.domain
    )


def _look_for(task: SearchTask, item: Evidence, messages: list[Message]) -> None:
    """Search with what is told of the entity at this place of the chain, or with its name once the chain has led to it."""
    question = task.question
    clues = [clue.text for clue in question.pattern.clues if clue.at == item.at]
    named = [node.partition(":")[2] for node in (item.subject, item.object)]
    told = [clue.text for clue in question.pattern.clues]
    queries = [" ".join(clues), " ".join([named[0], *clues]), " ".join(named), named[0], named[1]]
    if item.at == 0 and item.is_clue:
        queries = [question.text, " ".join(clues), *clues]
    for query in [*queries, *told]:
        if not query:
            continue
        answer = task.search_tools.search(query)
        if item.page in _HIT.findall(answer):
            _add_step(messages, "search", answer, query=query)
            return
    raise TaskError(f"{task.task_id}: no search finds {item.page}")


def _add_step(messages: list[Message], name: str, answer: str, **arguments: str) -> None:
    call = ToolCall(name=name, arguments=arguments, id=str(len(messages)))
    messages.append(Message(role="assistant", tool_calls=(call,)))
    messages.append(Message(role="tool", content=answer, tool_call_id=call.id))


def _final(question: Question) -> str:
    steps = "; ".join(
        f"{item.subject.partition(':')[2]} {item.relation.replace('_', ' ')} {item.object.partition(':')[2]}"
        for item in question.evidence
        if not item.is_clue
    )
    return f"Explanation: {steps}.\nExact Answer: {question.answer}\nConfidence: 95%"
