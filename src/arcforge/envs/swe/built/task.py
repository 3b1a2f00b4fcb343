"""A row of a manifest as a Task of the agent loop: the standard tools in a sandbox over its repository."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from arcforge.agents.repository_tools import repository_specs, repository_tools
from arcforge.agents.toolset import Toolset
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.envs.local import STANDARD_SYSTEM
from arcforge.envs.swe.builder.manifest import TaskRow
from arcforge.envs.swe.built.grading import grade, spec, work_of
from arcforge.envs.swe.built.places import Place, Places
from arcforge.sandbox.overlay import OverlaySandbox, OverlaySandboxes

_TOOLS, _THINKING = repository_specs(), Thinking()


@dataclass(frozen=True)
class BuiltTask:
    """Implements core.tasks.Task. Its messages wait until it is prepared, which takes as long as an installation does; open() does it
    while other work goes on."""

    row: TaskRow
    places: Places
    boxes: OverlaySandboxes
    family: str = "manifest"
    tools: tuple[ToolSpec, ...] = _TOOLS
    thinking: Thinking = _THINKING
    max_turns: int = 100
    max_tokens: int = 8192

    @property
    def task_id(self) -> str:
        return self.row.task_id

    @property
    def domain(self) -> str:
        return self.row.source

    @property
    def messages(self) -> tuple[Message, ...]:
        said = Message(role="user", content=self.places.prepare(self.row).statement)
        return (Message(role="system", content=STANDARD_SYSTEM), said)

    async def open(self) -> BuiltEpisode:
        """TaskError: it cannot be made here, or does not measure as the manifest says."""
        place = await asyncio.to_thread(self.places.prepare, self.row)
        return BuiltEpisode(self.boxes, place, await self.boxes.create(spec(self.boxes, place, place.tree)))


class BuiltEpisode:
    """Implements core.tasks.Episode. box: where the agent works."""

    def __init__(self, boxes: OverlaySandboxes, place: Place, box: OverlaySandbox) -> None:
        self._boxes, self._place, self.box = boxes, place, box
        self._tools = Toolset(repository_tools(box, str(place.interpreter.python)))

    @property
    def done(self) -> bool:
        return self._tools.done

    async def call(self, call: ToolCall) -> str:
        return await self._tools.call(call)

    async def grade(self, messages: Sequence[Message] = ()) -> Verdict:
        """The agent's processes end first. VerifierError when the tests say nothing."""
        await self.box.kill()
        return await grade(self._boxes, self._place, await work_of(self.box, self._place))

    async def close(self) -> None:
        await self.box.close()
