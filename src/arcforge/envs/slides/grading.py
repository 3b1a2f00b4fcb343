"""A written deck against its brief: every slide rendered, scored at the three levels, and read for what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from arcforge.core.messages import Value
from arcforge.envs.checking.client import Checker
from arcforge.envs.slides.briefs import Brief, SlideBrief
from arcforge.envs.slides.browser import Renderer
from arcforge.envs.slides.check import Check
from arcforge.envs.slides.content import Content, content, visible_text
from arcforge.envs.slides.markup import Unreadable
from arcforge.envs.slides.pixel_checks import ALIKE, difference, fingerprint
from arcforge.envs.slides.reading import read
from arcforge.envs.slides.rendering import Rendering
from arcforge.envs.slides.score import PageScore, page_score, unreadable

SAME_WORDS = 0.8


class SlideScore(Value):
    """One slide: how it looks, what it says, and whether an earlier slide of the deck is the same."""

    page: PageScore
    content: Content
    duplicate: bool = False

    @property
    def score(self) -> float:
        return 0.0 if self.duplicate else self.page.quality * self.content.share

    def details(self) -> dict[str, Any]:
        """What was lost, as JSON data."""
        return {
            "score": round(self.score, 4),
            "quality": round(self.page.quality, 4),
            "content": round(self.content.share, 4),
            "duplicate": self.duplicate,
            "missing": list(self.content.missing),
            "checks": {check.name: check.score for check in self.page.checks if check.score < 1},
        }


class DeckScore(Value):
    """The deck. reward: the mean of the slides' scores; a slide that was not written has 0."""

    slides: tuple[SlideScore, ...]

    @property
    def reward(self) -> float:
        return sum(slide.score for slide in self.slides) / len(self.slides)


class Look(NamedTuple):
    """What two slides are compared by."""

    fingerprint: np.ndarray
    text: str


async def grade_deck(renderer: Renderer, checker: Checker, brief: Brief, written: Mapping[int, str]) -> DeckScore:
    """Grade slides by number from 1. Raises VerifierError when a process fails, UserError where there is no browser."""
    scores: list[SlideScore] = []
    looks: list[Look | None] = []
    for number, slide in enumerate(brief.slides, 1):
        score, look = await _grade_slide(renderer, checker, slide, written.get(number), brief.files)
        scores.append(score)
        looks.append(look)
    for again in duplicates(looks):
        scores[again] = scores[again].model_copy(update={"duplicate": True})
    return DeckScore(slides=tuple(scores))


async def _grade_slide(
    renderer: Renderer, checker: Checker, slide: SlideBrief, html: str | None, files: Mapping[str, str]
) -> tuple[SlideScore, Look | None]:
    """(score, look where there is one)."""
    nothing = Content(share=0.0, missing=("everything",))
    if html is None:
        return SlideScore(page=unreadable("not written"), content=nothing), None
    try:
        markup = await read(checker, files, html)
    except Unreadable as reason:
        return SlideScore(page=unreadable(str(reason)), content=nothing), None
    rendering = await renderer.render(html, {name: text.encode() for name, text in files.items()})
    # In a thread: a canvas full of letters takes seconds, in which the event loop has others to serve.
    return await asyncio.to_thread(_look_at, slide, markup, rendering)


def _look_at(slide: SlideBrief, markup: Sequence[Check], rendering: Rendering) -> tuple[SlideScore, Look]:
    pixels = rendering.pixels()
    page = page_score(markup, rendering, pixels, slide.kind == "title")
    text = visible_text(rendering, pixels)
    said = content(slide, rendering, pixels, text)
    return SlideScore(page=page, content=said), Look(fingerprint(pixels), text)


def duplicates(looks: Sequence[Look | None]) -> list[int]:
    """Positions of slides that look like an earlier one and say nearly the same, or say exactly the same."""
    found = set()
    seen = [(place, look) for place, look in enumerate(looks) if look is not None]
    for (_, first), (place, second) in combinations(seen, 2):
        alike = difference(first.fingerprint, second.fingerprint) <= ALIKE
        same = first.text != "" and first.text == second.text
        if same or (alike and shared_words(first.text, second.text) >= SAME_WORDS):
            found.add(place)
    return sorted(found)


def shared_words(one: str, other: str) -> float:
    """Jaccard similarity of the sets of words; 1 for two texts without any."""
    first, second = set(one.split()), set(other.split())
    return len(first & second) / len(first | second) if first | second else 1.0
