"""The searched world: chains of facts, each on one page among many, as tasks with the tools search and open.

A question asks for the last fact of a chain. Searching for a fact finds pages about the next one, in another order and another
part of them for every wording; one of them holds the next fact.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import Field

from arcforge.agents.toolset import Arguments, Tool, Toolset
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict

TOKEN_CHARS = 4
"""Characters that count as one token, everywhere in the simulation."""


@dataclass(frozen=True)
class World:
    """Sizes. hops: facts in a chain. pages: about each fact, one of them right. found: pages that one search tells.
    page_tokens: mean length; pages have half to one and a half of it. thought_tokens: of each turn's reasoning. window: tokens
    that a model takes at most."""

    hops: int = 3
    pages: int = 12
    found: int = 6
    page_tokens: int = 2000
    thought_tokens: int = 800
    max_turns: int = 240
    window: int = 131_072

    def task(self, seed: int, index: int) -> SearchTask:
        return SearchTask(self, f"{seed}/{index}")


class SearchArguments(Arguments):
    query: str = Field(description="The fact to go on from.")
    wording: int = Field(0, description="Another number words the query otherwise.")


class OpenArguments(Arguments):
    page: str = Field(description="The name of a page.")


@dataclass(frozen=True)
class SearchTask:
    """One question. Implements core.tasks.Task; deterministic in its id."""

    world: World
    task_id: str
    family: str = "context-simulation"
    domain: str = "search"
    thinking: Thinking = field(default_factory=Thinking)
    max_tokens: int = 1024

    @property
    def max_turns(self) -> int:
        return self.world.max_turns

    @cached_property
    def facts(self) -> list[str]:
        """What is known first, and the fact of each hop; the last one is the answer."""
        rng = random.Random(self.task_id)
        return [f"fact-{rng.getrandbits(40):010x}" for _ in range(self.world.hops + 1)]

    @cached_property
    def right(self) -> list[str]:
        """The page of each hop that holds its fact."""
        return [random.Random(f"{fact}/right").choice(self.pages(fact)) for fact in self.facts[:-1]]

    def pages(self, fact: str) -> list[str]:
        return [f"page-{fact[5:]}-{number}" for number in range(self.world.pages)]

    @property
    def messages(self) -> tuple[Message, ...]:
        question = f"From {self.facts[0]}, {self.world.hops} facts on: which one is it? Answer with the fact alone."
        return (Message(role="system", content="Search with the tools."), Message(role="user", content=question))

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self._specs

    @cached_property
    def _specs(self) -> tuple[ToolSpec, ...]:
        return SearchEpisode(self).tools.specs

    async def open(self) -> SearchEpisode:
        return SearchEpisode(self)


class SearchEpisode:
    """One attempt. Implements core.tasks.Episode."""

    done = False

    def __init__(self, task: SearchTask) -> None:
        self._task = task
        self.tools = Toolset(
            [
                Tool("search", "Names of pages about what follows a fact.", SearchArguments, self._search),
                Tool("open", "The text of a page.", OpenArguments, self._open),
            ],
            answer_chars=1 << 20,
        )

    async def call(self, call: ToolCall) -> str:
        return await self.tools.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """1.0 for the last fact as the last message, else 0.0."""
        return Verdict(reward=float(messages[-1].role == "assistant" and messages[-1].content == self._task.facts[-1]))

    async def close(self) -> None:
        """Nothing is held."""

    async def _search(self, arguments: SearchArguments) -> str:
        if arguments.query not in self._task.facts[:-1]:
            return "nothing found"
        rng = random.Random(f"{self._task.task_id}/{arguments.query}/{arguments.wording}")
        return "\n".join(rng.sample(self._task.pages(arguments.query), self._task.world.found))

    async def _open(self, arguments: OpenArguments) -> str:
        tokens = self._task.world.page_tokens
        length = random.Random(arguments.page).randint(tokens // 2, tokens * 3 // 2) * TOKEN_CHARS
        told = f"It says: {self._task.facts[hop + 1]}\n" if (hop := self._hop(arguments.page)) is not None else ""
        return told + "text " * (length // 5)

    def _hop(self, page: str) -> int | None:
        return self._task.right.index(page) if page in self._task.right else None
