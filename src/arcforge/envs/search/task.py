"""A question as a task: an agent searches, opens, finds and computes, and answers in its last message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arcforge.agents.toolset import Toolset
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Scorer, Verdict
from arcforge.envs.code.running import Sandboxes
from arcforge.envs.python_tool import PythonTool
from arcforge.envs.search.grading import AnswerScorer
from arcforge.envs.search.questions.question import Question
from arcforge.envs.search.tools import SearchTools

SYSTEM = """You answer a question from a collection of pages. Look for what you need with the tools: the answer takes several
steps and several pages. When you are sure, answer without a tool call, in this form:
Explanation: one or two sentences
Exact Answer: the short answer and nothing else
Confidence: a percentage"""
MAX_TURNS, MAX_TOKENS = 40, 2048


@dataclass(frozen=True)
class SearchTask:
    """Implements core.tasks.Task. Its domain is the kind of the answer. sandboxes: where the tool python runs, which is not offered
    without."""

    question: Question
    search_tools: SearchTools
    scorer: Scorer = field(default_factory=AnswerScorer)
    family: str = "search"
    thinking: Thinking = field(default_factory=Thinking)
    max_turns: int = MAX_TURNS
    max_tokens: int = MAX_TOKENS
    sandboxes: Sandboxes | None = None

    @property
    def task_id(self) -> str:
        return f"search/{self.question.question_id}"

    @property
    def domain(self) -> str:
        return self.question.kind

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self.toolset(self.python()).specs

    def python(self) -> PythonTool | None:
        return PythonTool(self.sandboxes) if self.sandboxes else None

    def toolset(self, python: PythonTool | None) -> Toolset:
        return Toolset([*self.search_tools.tools, *([python.tool] if python else ())])

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="system", content=SYSTEM), Message(role="user", content=self.question.text))

    async def open(self) -> SearchEpisode:
        return SearchEpisode(self)


class SearchEpisode:
    """Implements core.tasks.Episode. The pages are shared and only read; `calls` counts the tool calls."""

    def __init__(self, task: SearchTask) -> None:
        self._task, self._python = task, task.python()
        self._tools = task.toolset(self._python)
        self.done = False
        self.calls = 0

    async def call(self, call: ToolCall) -> str:
        self.calls += 1
        return await self._tools.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """A conversation that ends without an answer (in a tool call, or its result) earns 0."""
        self.done = True
        last = messages[-1] if messages else None
        if last is None or last.role != "assistant" or last.tool_calls:
            return Verdict(reward=0.0, details={"given": "", "note": "no answer was given"})
        question = self._task.question
        reference = {"question": question.text, "answer": question.answer, "aliases": question.aliases}
        verdict = await self._task.scorer.score(messages, reference)
        return verdict.model_copy(update={"details": {**verdict.details, "tool_calls": self.calls}})

    async def close(self) -> None:
        self.done = True
        if self._python:
            await self._python.close()
