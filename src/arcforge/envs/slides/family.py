"""The family "slides": a brief becomes one to five HTML slides, graded at three levels (GLM-5 report, section 4.2.5)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arcforge.core.errors import TaskError
from arcforge.core.messages import Message, Thinking, ToolCall, ToolSpec
from arcforge.core.protocols import Verdict
from arcforge.core.tasks import Conversation, Split
from arcforge.envs.checking.client import Checker
from arcforge.envs.single_turn import draw
from arcforge.envs.slides.briefs import DOMAINS, Brief, make
from arcforge.envs.slides.demonstrations import write_headings, write_slides
from arcforge.envs.slides.writing import OK, SYSTEM, TOOLS, Deck

if TYPE_CHECKING:
    from arcforge.envs.slides.browser import Renderer
    from arcforge.envs.slides.grading import DeckScore

MAX_TOKENS = 8192
THINKING = Thinking(enabled=False)
GOOD_REWARD = 0.9
LAZY_REWARD = (
    0.1  # headings alone are given up to 0.07 for a deck, whose title slide may be sparse, and 0.02 for one slide
)


class Grader:
    """The browser and the checking process that the family's episodes share; they start with the first grading.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._checker = Checker()
        self._renderer: Renderer | None = None

    async def grade(self, brief: Brief, written: dict[int, str]) -> DeckScore:
        # Markup, pixels and browser libraries are needed by graders only.
        from arcforge.envs.slides.browser import Renderer
        from arcforge.envs.slides.grading import grade_deck

        self._renderer = self._renderer or Renderer()
        return await grade_deck(self._renderer, self._checker, brief, written)

    async def close(self) -> None:
        await self._checker.close()
        if self._renderer is not None:
            await self._renderer.close()


@dataclass(frozen=True)
class SlidesTask:
    """One brief. Implements core.tasks.Task; every slide may be written about twice."""

    task_id: str
    domain: str
    brief: Brief
    grader: Grader
    family: str = "slides"
    tools: tuple[ToolSpec, ...] = TOOLS
    thinking: Thinking = THINKING
    max_tokens: int = MAX_TOKENS

    @property
    def messages(self) -> tuple[Message, ...]:
        return opening(self.brief)

    @property
    def max_turns(self) -> int:
        return 2 * len(self.brief.slides) + 2

    async def open(self) -> SlidesEpisode:
        return SlidesEpisode(self)


class SlidesEpisode:
    """One attempt. Implements core.tasks.Episode."""

    def __init__(self, task: SlidesTask) -> None:
        self._task = task
        self._deck = Deck(len(task.brief.slides))

    @property
    def done(self) -> bool:
        return self._deck.done

    async def call(self, call: ToolCall) -> str:
        return self._deck.call(call)

    async def grade(self, messages: Sequence[Message]) -> Verdict:
        """The deck's score; details say for every slide what it lost. Raises VerifierError when a process fails."""
        score = await self._task.grader.grade(self._task.brief, self._deck.slides)
        return Verdict(reward=round(score.reward, 4), details={"slides": [slide.details() for slide in score.slides]})

    async def close(self) -> None:
        """The browser is the family's."""


class SlidesFamily:
    """Index i is a brief of domain i modulo 3: a slide of points, a slide with a chart, a deck of five."""

    name = "slides"
    domains = DOMAINS

    def __init__(self, seed: int = 0, grader: Grader | None = None) -> None:
        self._seed = seed
        self._grader = grader or Grader()

    def brief(self, split: Split, index: int) -> Brief:
        """The brief behind `task(split, index)`."""
        return self._draw(split, index, random.Random(f"slides:{self._seed}:{split}:{index}"))

    def task(self, split: Split, index: int) -> SlidesTask:
        domain = self.domains[index % len(self.domains)]
        identity = f"{self.name}/{domain}/{split}/{self._seed}-{index}"
        return SlidesTask(identity, domain, self.brief(split, index), self._grader)

    def demonstration(self, index: int) -> Conversation:
        """A brief of the train split, its slides written by templates one after the other, and submitted."""
        rng = random.Random(f"slides:{self._seed}:demonstration:{index}")
        brief = self._draw("train", index, rng)
        return Conversation(
            messages=(*opening(brief), *work(write_slides(brief, rng))),
            tools=TOOLS,
            thinking=THINKING,
            family=self.name,
            domain=self.domains[index % len(self.domains)],
        )

    async def validate(self, split: Split, index: int) -> None:
        """TaskError unless the grader likes the templates' slides and not the headings alone. Needs a browser."""
        brief = self.brief(split, index)
        slides = write_slides(brief, random.Random(f"{self._seed}:{index}"))
        good = await self._grader.grade(brief, dict(enumerate(slides, 1)))
        lazy = await self._grader.grade(brief, dict(enumerate(write_headings(brief), 1)))
        if good.reward < GOOD_REWARD or lazy.reward > LAZY_REWARD:
            raise TaskError(f"slides {split} {index}: good slides were given {good.reward}, headings {lazy.reward}")

    async def close(self) -> None:
        """End the browser and the checking process."""
        await self._grader.close()

    def _draw(self, split: Split, index: int, rng: random.Random) -> Brief:
        domain = self.domains[index % len(self.domains)]
        return draw(lambda random_: make(domain, random_), lambda brief: brief.key, split, rng)


def opening(brief: Brief) -> tuple[Message, ...]:
    """System prompt and request."""
    return (Message(role="system", content=SYSTEM), Message(role="user", content=brief.request))


def work(slides: Sequence[str]) -> list[Message]:
    """The turns that write these slides and submit."""
    arguments = [("write_slide", {"number": number, "html": html}) for number, html in enumerate(slides, 1)]
    messages = []
    for place, (name, given) in enumerate([*arguments, ("submit", {})]):
        call = ToolCall(name=name, arguments=given, id=f"call-{place}")
        messages.append(Message(role="assistant", tool_calls=(call,)))
        messages.append(Message(role="tool", content=OK, tool_call_id=call.id))
    return messages
