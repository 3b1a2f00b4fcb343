"""A Harbor task as a Task of the agent loop: the standard tools in a sandbox made of its environment, its own tests as the grader."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from arcforge.agents.repository_tools import repository_specs, repository_tools
from arcforge.agents.toolset import Toolset
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.sandboxes import SandboxAttempt, SandboxRunner
from arcforge.envs.terminal.verdict import verdict

SYSTEM = (
    "You work on a Linux machine through a shell. Do what you are asked for, check that it is done, and submit. "
    "There is no network. Only what is in the working directory is looked at."
)
_TOOLS, _THINKING = repository_specs(), Thinking()


@dataclass(frozen=True)
class TerminalTask:
    """Implements core.tasks.Task."""

    harbor: HarborTask
    runner: SandboxRunner
    task_id: str
    domain: str = "terminal"
    family: str = "terminal"
    tools: tuple[ToolSpec, ...] = _TOOLS
    thinking: Thinking = _THINKING
    max_turns: int = 50
    max_tokens: int = 4096

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="system", content=SYSTEM), Message(role="user", content=self.harbor.instruction))

    async def open(self) -> TerminalEpisode:
        """TaskError: the environment cannot be made here."""
        stack = AsyncExitStack()
        try:
            image = await stack.enter_async_context(self.runner.image(self.harbor))
            return TerminalEpisode(stack, await stack.enter_async_context(image.attempt()))
        except BaseException:
            await stack.aclose()
            raise


class TerminalEpisode:
    """Implements core.tasks.Episode."""

    def __init__(self, stack: AsyncExitStack, attempt: SandboxAttempt) -> None:
        self._stack, self._attempt = stack, attempt
        self._tools = Toolset(repository_tools(attempt.box))

    @property
    def done(self) -> bool:
        return self._tools.done

    async def call(self, call: ToolCall) -> str:
        return await self._tools.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """VerifierError when the tests say nothing."""
        return verdict(await self._attempt.verify())

    async def close(self) -> None:
        await self._stack.aclose()
