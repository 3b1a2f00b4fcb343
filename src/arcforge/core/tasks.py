"""Tasks, episodes and families: what an environment offers to an agent, a rollout and an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec, Value
from arcforge.core.protocols import Completer, Verdict
from arcforge.core.trajectory import TokenSpan

Split = Literal["train", "dev", "test"]


class Conversation(Value):
    """A finished conversation, as a demonstration or as text for training."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    thinking: Thinking = Thinking()
    family: str = ""
    domain: str = ""


class Episode(Protocol):
    """One running attempt at a task."""

    @property
    def done(self) -> bool:
        """The agent submitted or the environment ended."""
        ...

    async def call(self, call: ToolCall) -> str:
        """Run a tool. A mistake of the model is answered in the text; broken machinery raises ToolError or SandboxError."""
        ...

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """Reward in [0, 1]. Raises TaskError, JudgeError or SandboxError when it cannot be told."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Workspace(Protocol):
    """An episode whose work is a directory of this machine: a program outside any sandbox can do it there, and the grader reads it."""

    @property
    def root(self) -> Path: ...


class Task(Protocol):
    """One problem. `messages` open the conversation; `max_tokens` bounds each turn."""

    @property
    def task_id(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def tools(self) -> tuple[ToolSpec, ...]: ...
    @property
    def thinking(self) -> Thinking: ...
    @property
    def max_turns(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    async def open(self) -> Episode: ...


class Family(Protocol):
    """A family of tasks. Tasks and demonstrations are deterministic in (family seed, split, index); splits never overlap."""

    @property
    def name(self) -> str: ...
    @property
    def domains(self) -> tuple[str, ...]: ...

    def task(self, split: Split, index: int) -> Task: ...

    def demonstration(self, index: int) -> Conversation: ...

    async def close(self) -> None:
        """Give back what the family's episodes share (fork servers, clients)."""
        ...


class Door(Protocol):
    """Where rollouts meet the model: opens an append-only token record per rollout and hands it back at the end."""

    def open(self, rollout_id: str, task: Task) -> Completer: ...

    def close(self, rollout_id: str) -> list[list[TokenSpan]]:
        """The record as one list of spans per fork (one unless the history drifted)."""
        ...
