"""Tool-integrated reasoning: single-turn tasks with a `python` tool and several turns (GLM-5 report, section 3.2).

The model may run Python before it answers; the answer is its last message, graded as without the tool. Each call is a new
interpreter: variables are gone after it, files in the working directory stay until the episode ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arcforge.agents.toolset import Toolset
from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.core.tasks import Conversation, Family, Split
from arcforge.envs.code.running import Sandboxes, forked
from arcforge.envs.python_tool import PythonTool
from arcforge.envs.single_turn import SingleTurnTask
from arcforge.sandbox.fork import ForkServer

SUFFIX = "+python"
MAX_TURNS = 8
TOLD = (
    "You may run Python with the tool `python` before you answer: it shows what the code prints. Every call is a new interpreter, "
    "only files in the working directory stay. Give the final answer in a message without a tool call."
)


@dataclass(frozen=True)
class ToolIntegratedTask:
    """`inner` with the tool. Implements core.tasks.Task."""

    inner: SingleTurnTask
    sandboxes: Sandboxes
    family: str
    max_turns: int = MAX_TURNS

    @property
    def task_id(self) -> str:
        return f"{self.inner.task_id}{SUFFIX}"

    @property
    def domain(self) -> str:
        return self.inner.domain

    @property
    def level(self) -> int:
        return self.inner.level

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return (PythonTool(self.sandboxes).tool.spec,)

    @property
    def messages(self) -> tuple[Message, ...]:
        return with_tool(self.inner.messages)

    @property
    def thinking(self) -> Thinking:
        return self.inner.thinking

    @property
    def max_tokens(self) -> int:
        return self.inner.max_tokens

    async def open(self) -> ToolIntegratedEpisode:
        return ToolIntegratedEpisode(self.inner, self.sandboxes)


class ToolIntegratedEpisode:
    """One attempt. Implements core.tasks.Episode."""

    def __init__(self, task: SingleTurnTask, sandboxes: Sandboxes) -> None:
        self._task, self._python = task, PythonTool(sandboxes)
        self._tools = Toolset([self._python.tool])
        self.done = False

    async def call(self, call: ToolCall) -> str:
        """Raises SandboxError."""
        return await self._tools.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """Of the last message alone. A conversation that ends in a tool call or its result has no answer: 0.0."""
        self.done = True
        last = messages[-1] if messages else None
        if last is None or last.role != "assistant" or last.tool_calls:
            return Verdict(reward=0.0, details={"note": "the conversation ends without an answer"})
        return await self._task.scorer.score((*self._task.messages, last), self._task.reference)

    async def close(self) -> None:
        self.done = True
        await self._python.close()


class ToolIntegratedFamily:
    """Implements core.tasks.Family: the tasks of a family of single-turn tasks, each with the tool.

    Demonstrations are those of the family: they answer without a call. UserError when a task is not a single-turn one.
    """

    def __init__(self, inner: Family) -> None:
        self._inner, self._server = inner, ForkServer()
        self.name, self.domains = f"{inner.name}{SUFFIX}", inner.domains

    def task(self, split: Split, index: int) -> ToolIntegratedTask:
        inner = self._inner.task(split, index)
        if not isinstance(inner, SingleTurnTask):
            raise UserError(f"{self._inner.name}: only tasks of one turn without tools can be given the python tool")
        return ToolIntegratedTask(inner, forked(self._server), self.name)

    def demonstration(self, index: int) -> Conversation:
        shown = self._inner.demonstration(index)
        tools = (PythonTool(forked(self._server)).tool.spec,)
        return shown.model_copy(update={"messages": with_tool(shown.messages), "tools": tools, "family": self.name})

    async def close(self) -> None:
        await self._server.close()
        await self._inner.close()


def with_tool(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system message told of the tool; a conversation without one gets one."""
    first, rest = messages[:1], messages[1:]
    if first and first[0].role == "system":
        return (first[0].model_copy(update={"content": f"{first[0].content} {TOLD}"}), *rest)
    return (Message(role="system", content=TOLD), *messages)
