"""Whether a slide says what its brief asks for, judged by what can be seen on it."""

from __future__ import annotations

import re
from bisect import bisect_left

import numpy as np

from arcforge.core.messages import Value
from arcforge.envs.slides.briefs import SlideBrief, Table
from arcforge.envs.slides.layout_checks import SEEN, is_visible
from arcforge.envs.slides.pixel_checks import INK, LEGIBLE, drawn_contrast
from arcforge.envs.slides.rendering import CANVAS, Box, Image, Rect, Rendering

BAR_TOLERANCE = 0.04
SHORTEST_BAR = 8.0
MOST_BARS = 400
OPAQUE = 0.3
ON_CANVAS = 0.9  # of the area
EDGE = 3  # px around a box in which it has to differ from what is behind it


class Content(Value):
    """share: of the requirements that are met; missing: the others."""

    share: float
    missing: tuple[str, ...] = ()


def visible_text(rendering: Rendering, pixels: np.ndarray) -> str:
    """What a reader can see, in document order: inside the canvas, not hidden, with some contrast."""
    seen = [t for t in rendering.page.texts if is_visible(t) and t.box.meet(CANVAS).area >= ON_CANVAS * t.box.area]
    return normalised(" ".join(t.text for t in seen if drawn_contrast(pixels, t) >= LEGIBLE))


def normalised(text: str) -> str:
    return " ".join(text.lower().replace("\u00a0", " ").replace("\u2019", "'").split())


def says(text: str, fact: str) -> bool:
    """The fact's words stand in the normalised text, not as a part of longer words or numbers."""
    return re.search(rf"(?<![\w.,]){re.escape(normalised(fact))}(?![\w%]|[.,]\d)", text) is not None


def is_shown(part: Box | Image, pixels: np.ndarray) -> bool:
    """A reader can see the box or picture: on the canvas, neither covered nor transparent, and unlike what is around it."""
    there = part.rect.area > 0 and part.rect.meet(CANVAS).area >= ON_CANVAS * part.rect.area
    return there and part.visible >= SEEN and part.opacity >= OPAQUE and _stands_out(part.rect, pixels)


def _stands_out(rect: Rect, pixels: np.ndarray) -> bool:
    """Some colour channel varies in the rectangle with its surroundings."""
    top, left = max(0, int(rect.y) - EDGE), max(0, int(rect.x) - EDGE)
    part = pixels[top : max(0, round(rect.bottom)) + EDGE, left : max(0, round(rect.right)) + EDGE]
    return part.size > 0 and bool((np.ptp(part, axis=(0, 1)) > INK).any())


def has_bars(rendering: Rendering, pixels: np.ndarray, table: Table) -> bool:
    """Boxes without text that can be seen, with widths, or heights, in proportion to the values and equal across that."""
    bare = [b for b in rendering.page.boxes if not b.has_text][:MOST_BARS]
    rects = [b.rect for b in bare if is_shown(b, pixels)]
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


def content(slide: SlideBrief, rendering: Rendering, pixels: np.ndarray, text: str) -> Content:
    """The heading, every fact, every row of the table, the bars and the picture; each counts the same.

    text: what `visible_text` reads.
    """
    met: dict[str, bool] = {f"heading: {slide.heading}": says(text, slide.heading)}
    met |= {f"fact: {fact}": says(text, fact) for point in slide.points for fact in point.facts}
    if slide.table is not None:
        met |= {f"row: {name} {value:,}": says(text, name) and _number(text, value) for name, value in slide.table.rows}
        # A chart without its bars is no chart: they weigh as much as the rows together.
        if slide.kind == "chart":
            bars = has_bars(rendering, pixels, slide.table)
            met |= {f"bars: {part + 1} of {len(slide.table.rows)}": bars for part in range(len(slide.table.rows))}
    if slide.image:
        named = [i for i in rendering.page.images if i.source == slide.image and i.natural[0]]
        met[f"picture: {slide.image}"] = any(is_shown(image, pixels) for image in named)
    return Content(share=sum(met.values()) / len(met), missing=tuple(name for name, good in met.items() if not good))


def _number(text: str, value: int) -> bool:
    return says(text, f"{value:,}") or says(text, str(value))
