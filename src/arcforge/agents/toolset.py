"""Tools as values, and any list of them as what an episode offers: an environment adds its own beside the standard ones.

    tools = Toolset([*repository_tools(sandbox), Tool("look_up", "A word's meaning.", LookUp, look_up)])
    tools.specs        for the task
    await tools.call(call)

A mistake of the model (no such tool, wrong arguments, whatever a handler tells it) is answered in text. Broken machinery raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from arcforge.agents.answers import capped
from arcforge.core.errors import ToolError
from arcforge.core.messages import ToolCall, ToolSpec

ANSWER_CHARS = 16_000
CALL_SECONDS = 900.0


class Arguments(BaseModel):
    """The arguments of a tool: fields with types, defaults and Field(description=...). "3" is taken for an integer and 3 for a
    string, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


A = TypeVar("A", bound=Arguments)


@dataclass(frozen=True)
class Tool(Generic[A]):
    """One tool. handler: gets checked arguments, gives the answer. ends: the episode is done after this call."""

    name: str
    description: str
    arguments: type[A]
    handler: Callable[[A], Awaitable[str]]
    ends: bool = False

    @cached_property
    def spec(self) -> ToolSpec:
        return ToolSpec(name=self.name, description=self.description, parameters=_schema(self.arguments))

    async def run(self, arguments: dict[str, Any]) -> str:
        try:
            checked = self.arguments.model_validate(arguments)
        except ValidationError as error:
            return f"bad arguments for {self.name}: {_told(error)}"
        return await self.handler(checked)


class Toolset:
    """The tools of one episode. `done` after one that ends it.

    answer_chars: longer answers keep head and tail. seconds: a call that takes longer is broken machinery; tools that run
    commands have limits of their own below it. ValueError when two tools have one name.
    """

    def __init__(
        self, tools: Sequence[Tool[Any]], *, answer_chars: int = ANSWER_CHARS, seconds: float = CALL_SECONDS
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise ValueError(f"two tools of one name in {[tool.name for tool in tools]}")
        self._answer_chars, self._seconds = answer_chars, seconds
        self.done = False

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self._tools.values())

    async def call(self, call: ToolCall) -> str:
        """The answer to one call. Raises SandboxError or ToolError when machinery breaks."""
        tool = self._tools.get(call.name)
        if tool is None:
            return f"no tool {call.name}; there are {', '.join(self._tools)}"
        try:
            async with asyncio.timeout(self._seconds):
                text = await tool.run(call.arguments)
        except TimeoutError:
            raise ToolError(f"{call.name}: no answer after {self._seconds:g} s") from None
        except OSError as error:
            raise ToolError(f"{call.name}: {error}") from error
        self.done = self.done or tool.ends
        return capped(text, self._answer_chars)


def _schema(arguments: type[Arguments]) -> dict[str, Any]:
    """JSON schema without what only pydantic needs: titles, and the class's docstring."""
    schema = arguments.model_json_schema()
    properties = {
        name: {key: value for key, value in told.items() if key != "title"}
        for name, told in schema.get("properties", {}).items()
    }
    rest = {key: value for key, value in schema.items() if key not in ("title", "description", "properties")}
    return {**rest, "properties": properties}


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem["loc"] else problem["msg"]
        for problem in error.errors(include_url=False, include_input=False)
    )
