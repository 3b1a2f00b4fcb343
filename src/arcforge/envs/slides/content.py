"""Whether a slide says what its brief asks for, judged by what can be seen on it."""

from __future__ import annotations

import re
from bisect import bisect_left

import numpy as np

from arcforge.core.messages import Value
from arcforge.envs.slides.briefs import SlideBrief, Table
from arcforge.envs.slides.layout_checks import is_visible
from arcforge.envs.slides.pixel_checks import LEGIBLE, drawn_contrast
from arcforge.envs.slides.rendering import CANVAS, Rendering

BAR_TOLERANCE = 0.04
SHORTEST_BAR = 8.0
MOST_BARS = 400


class Content(Value):
    """share: of the requirements that are met; missing: the others."""

    share: float
    missing: tuple[str, ...] = ()


def visible_text(rendering: Rendering, pixels: np.ndarray) -> str:
    """What a reader can see, in document order: inside the canvas, not hidden, with some contrast."""
    seen = [t for t in rendering.page.texts if is_visible(t) and t.box.meet(CANVAS).area >= 0.9 * t.box.area]
    return normalised(" ".join(t.text for t in seen if drawn_contrast(pixels, t) >= LEGIBLE))


def normalised(text: str) -> str:
    return " ".join(text.lower().replace("\u00a0", " ").replace("\u2019", "'").split())


def says(text: str, fact: str) -> bool:
    """The fact's words stand in the normalised text, not as a part of longer words or numbers."""
    return re.search(rf"(?<![\w.,]){re.escape(normalised(fact))}(?![\w%]|[.,]\d)", text) is not None


def has_bars(rendering: Rendering, table: Table) -> bool:
    """Boxes without text whose widths, or whose heights, are in proportion to the values and equal across that."""
    rects = [b.rect for b in rendering.page.boxes if not b.has_text and b.opacity >= 0.3 and b.rect.meet(CANVAS).area][
        :MOST_BARS
    ]
    values = [value for _, value in table.rows]
    upright = [(r.height, r.width, r.bottom) for r in rects]
    lying = [(r.width, r.height, r.x) for r in rects]
    return any(_in_proportion(bars, values) for bars in (upright, lying))


def _in_proportion(bars: list[tuple[float, float, float]], values: list[int]) -> bool:
    """bars: (length, thickness, base line). Some of them, alike in thickness and base, have lengths like the values."""
    groups: dict[tuple[int, int], list[float]] = {}
    for length, thickness, base in bars:
        if length >= SHORTEST_BAR:
            groups.setdefault((round(thickness / 3), round(base / 3)), []).append(length)
    return any(_scaled(sorted(lengths), sorted(values)) for lengths in groups.values() if len(lengths) >= len(values))


def _scaled(lengths: list[float], values: list[int]) -> bool:
    """Some length per unit puts every value on one of the lengths (both rising; values all different)."""
    for length in lengths:
        unit = length / values[-1]
        if all(_near(lengths, value * unit) for value in values):
            return True
    return False


def _near(lengths: list[float], wanted: float) -> bool:
    place = bisect_left(lengths, wanted * (1 - BAR_TOLERANCE))
    return place < len(lengths) and lengths[place] <= wanted * (1 + BAR_TOLERANCE)


def content(slide: SlideBrief, rendering: Rendering, pixels: np.ndarray) -> Content:
    """The heading, every fact, every row of the table, the bars and the picture; each counts the same."""
    text = visible_text(rendering, pixels)
    met: dict[str, bool] = {f"heading: {slide.heading}": says(text, slide.heading)}
    met |= {f"fact: {fact}": says(text, fact) for point in slide.points for fact in point.facts}
    if slide.table is not None:
        met |= {f"row: {name} {value:,}": says(text, name) and _number(text, value) for name, value in slide.table.rows}
        # A chart without its bars is no chart: they weigh as much as the rows together.
        if slide.kind == "chart":
            bars = has_bars(rendering, slide.table)
            met |= {f"bars: {part + 1} of {len(slide.table.rows)}": bars for part in range(len(slide.table.rows))}
    if slide.image:
        met[f"picture: {slide.image}"] = any(i.source == slide.image and i.natural[0] for i in rendering.page.images)
    return Content(share=sum(met.values()) / len(met), missing=tuple(name for name, good in met.items() if not good))


def _number(text: str, value: int) -> bool:
    return says(text, f"{value:,}") or says(text, str(value))
