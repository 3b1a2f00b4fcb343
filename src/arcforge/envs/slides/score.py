"""One score of a page's quality from the checks of the three levels, and the share of slides that are strictly 16:9."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arcforge.core.errors import UserError
from arcforge.core.messages import Value
from arcforge.envs.slides import layout_checks, pixel_checks
from arcforge.envs.slides.check import Check, check
from arcforge.envs.slides.rendering import Rendering

LEVELS = {1: 0.3, 2: 0.4, 3: 0.3}
HEAVY = frozenset({"page size", "overflow"})
WEIGHTY = frozenset(
    {"fill", "clipped text", "overlap", "text size", "hidden text", "contrast", "legibility", "empty region"}
)
MARKUP_GATES = frozenset({"parsable", "missing images", "duplicate images", "repetition", "concealment"})
LAYOUT_GATES = frozenset({"page size", "overflow", "fill", "clipped text", "hidden text", "text size", "overlap"})
GATES = MARKUP_GATES | LAYOUT_GATES
"""Checks that stand for a slide which is broken or games the others: each also multiplies the score, by 0.5 at worst."""


class PageScore(Value):
    """One slide's quality in [0, 1] and the checks behind it."""

    quality: float
    checks: tuple[Check, ...]

    def __getitem__(self, name: str) -> Check:
        return next(c for c in self.checks if c.name == name)


def layout_level(rendering: Rendering, title: bool) -> list[Check]:
    """Level 2 of one slide."""
    return [
        layout_checks.page_size(rendering, title),
        layout_checks.fill(rendering, title),
        layout_checks.overflow(rendering),
        layout_checks.clipped_text(rendering),
        layout_checks.hidden_text(rendering),
        layout_checks.text_size(rendering),
        layout_checks.overlap(rendering),
        layout_checks.containment(rendering),
        layout_checks.margins(rendering),
        layout_checks.alignment(rendering),
        layout_checks.images(rendering),
    ]


def pixel_level(pixels: np.ndarray, rendering: Rendering, title: bool) -> list[Check]:
    """Level 3 of one slide. Use of space counts as far as content fills the page: what only stretches uses none."""
    most = layout_checks.fill(rendering, title).score
    space = [rule(pixels, title) for rule in (pixel_checks.whitespace, pixel_checks.empty_region, pixel_checks.balance)]
    return [
        *(c.model_copy(update={"score": min(c.score, most)}) for c in space),
        pixel_checks.palette(pixels),
        pixel_checks.legibility(pixels, rendering.page.texts),
    ]


def quality(checks: Sequence[Check]) -> float:
    """The weighted mean of the levels' weighted means, times the gates. UserError for a level without a check."""
    means = {}
    for level in LEVELS:
        of_level = [(_weight(c), c.score) for c in checks if c.level == level]
        if not of_level:
            raise UserError(f"level {level} has a weight but no check")
        means[level] = sum(w * s for w, s in of_level) / sum(w for w, _ in of_level)
    total = sum(weight * means[level] for level, weight in LEVELS.items())
    for gate in checks:
        total *= 0.5 + 0.5 * gate.score if gate.name in GATES else 1.0
    return total


def _weight(result: Check) -> float:
    return 3.0 if result.name in HEAVY else 2.0 if result.name in WEIGHTY else 1.0


def page_score(markup: Sequence[Check], rendering: Rendering, pixels: np.ndarray, title: bool = False) -> PageScore:
    """All three levels of one slide. markup: the checks of level 1. pixels: the rendering's. title: it may be sparse."""
    checks = [*markup, *layout_level(rendering, title), *pixel_level(pixels, rendering, title)]
    if next(c for c in checks if c.name == "parsable").score == 0:
        return PageScore(quality=0.0, checks=tuple(checks))
    return PageScore(quality=quality(checks), checks=tuple(checks))


def unreadable(reason: str) -> PageScore:
    """The score of markup that is no slide at all."""
    return PageScore(quality=0.0, checks=(check(1, "parsable", 0, ["body"], reason),))


def is_16_to_9(score: PageScore) -> bool:
    """The strict 16:9 criterion: the real page is exactly 1280x720 and nothing leaves it."""
    return all(c.score == 1.0 for c in score.checks if c.name in ("page size", "overflow", "clipped text")) and any(
        c.name == "page size" for c in score.checks
    )


def compliance(decks: Sequence[Sequence[PageScore]]) -> float:
    """The share of the slides of a set of decks that are strictly 16:9. UserError for none."""
    pages = [page for deck in decks for page in deck]
    if not pages:
        raise UserError("no slides to measure 16:9 compliance of; give at least one deck")
    return sum(map(is_16_to_9, pages)) / len(pages)
