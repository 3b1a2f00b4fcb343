"""Level 2: the rendered DOM (GLM-5 report, section 4.2.5), always the real rendered values: what overflow cuts off is
measured with overflow visible, and what spacing stretches without it. Each check is a pure function of a Rendering."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, groupby, pairwise

from arcforge.envs.slides.check import Check, check, ramp
from arcforge.envs.slides.rendering import CANVAS, HEIGHT, WIDTH, Rect, Rendering, Text, union

TOLERANCE = 1.0
READABLE, SMALLEST = 14.0, 10.0  # font sizes in px: readable, and no longer text at all
HEADING = 28.0
EDGE = 24.0  # text keeps this distance from the canvas's edges
RHYTHM = 24.0  # blank space above and below a leaf that still belongs to it
FILLED, SPARSE = 0.7, 0.55  # of the height is used by a slide that is not a title, and by one far too empty
SEEN = 0.67  # of the sampled points
COMPARED = 400  # a canvas holds far fewer lines, and a hostile one tens of thousands


def real_size(rendering: Rendering) -> tuple[float, float]:
    """(width, height) of the page as its content is: larger where something sticks out, smaller where space only stretches.

    Hard truncation (1280x1015 shown as 1280x720) and stretched spacing (1280x493 shown as 1280x720) are seen through.
    """
    shown = [p.rect for p in rendering.unfolded.content if p.rect.area > 0]
    around = union([rendering.unfolded.body, *shown])
    height = around.height
    used = filled(rendering) * HEIGHT
    return around.width, used if height <= HEIGHT + TOLERANCE and used < FILLED * HEIGHT else height


def page_size(rendering: Rendering, title: bool) -> Check:
    """Strictly 1280x720. A title slide may be as empty as it likes."""
    width, height = real_size(rendering)
    if title and height < HEIGHT:
        height = rendering.unfolded.body.height
    wrong = abs(width - WIDTH) / WIDTH + abs(height - HEIGHT) / HEIGHT
    exact = abs(width - WIDTH) <= TOLERANCE and abs(height - HEIGHT) <= TOLERANCE
    return check(
        2,
        "page size",
        1.0 if exact else 0.5 * ramp(wrong, 0.25, 0.0),
        ["body"] * (not exact),
        f"{width:.0f}x{height:.0f}",
    )


def filled(rendering: Rendering) -> float:
    """The share of the canvas's height that leaves (text, pictures, graphics) use once nothing stretches."""
    rows = sorted((r.y - RHYTHM, r.bottom + RHYTHM) for r in rendering.unfolded.natural if r.area > 0)
    covered, end = 0.0, 0.0
    for top, bottom in rows:
        top, bottom = max(top, end, 0.0), min(bottom, float(HEIGHT))
        covered += max(0.0, bottom - top)
        end = max(end, bottom)
    return covered / HEIGHT


def fill(rendering: Rendering, title: bool) -> Check:
    """The content itself fills the page, not paddings, gaps and stretched boxes. Title slides are free."""
    share = filled(rendering)
    return check(2, "fill", 1.0 if title else ramp(share, SPARSE, FILLED), (), f"{share:.0%} of the height")


def overflow(rendering: Rendering) -> Check:
    """With overflow visible, no text, picture or box around text leaves the canvas."""
    outside = [
        (p.rect.area - p.rect.meet(CANVAS).area, p.element)
        for p in rendering.unfolded.content
        if p.rect.x < -TOLERANCE
        or p.rect.y < -TOLERANCE
        or p.rect.right > WIDTH + TOLERANCE
        or p.rect.bottom > HEIGHT + TOLERANCE
    ]
    named = [element for _, element in sorted(outside, reverse=True)]
    return check(2, "overflow", 1 - 0.34 * len(set(named)), named)


def clipped_text(rendering: Rendering) -> Check:
    """No ancestor cuts text off; by characters."""
    return _share(rendering, "clipped text", lambda t: t.clipped > 0.02, 4.0)


def hidden_text(rendering: Rendering) -> Check:
    """All text can be seen: not covered, transparent, off the canvas or vanishingly small; by characters."""
    return _share(rendering, "hidden text", lambda t: not is_visible(t), 4.0)


def is_visible(text: Text) -> bool:
    """A reader can see it, its colour aside."""
    return bool(text.rects) and text.visible >= SEEN and text.opacity >= 0.3 and text.size >= SMALLEST - 1


def text_size(rendering: Rendering) -> Check:
    """Text is at least 14 px after all transforms; below 10 px counts as none. By characters, with a heading of 28 px."""
    shown = [t for t in rendering.page.texts if t.rects]
    total = sum(len(t.text) for t in shown)
    small = [t for t in shown if t.size < READABLE - 0.25]
    lost = sum(len(t.text) * (1 - 0.5 * ramp(t.size, SMALLEST, READABLE)) for t in small)
    largest = max((t.size for t in shown), default=0.0)
    score = (1 - 2 * lost / max(1, total)) * (1.0 if largest >= HEADING else 0.7)
    smallest = min((t.size for t in shown), default=0.0)
    return check(
        2,
        "text size",
        score,
        [t.element for t in sorted(small, key=lambda t: t.size)],
        f"{smallest:.0f} to {largest:.0f} px",
    )


def overlap(rendering: Rendering) -> Check:
    """Lines of text of different blocks do not lie on one another. Lines after the first COMPARED are not compared."""
    lines = [(t, rect) for t in rendering.page.texts for rect in t.rects][:COMPARED]
    shown = [(text, [rect for _, rect in group]) for text, group in groupby(lines, lambda line: line[0])]
    found = []
    for (one, ones), (other, others) in combinations(shown, 2):
        if one.block == other.block or one.box.meet(other.box).area == 0:
            continue
        common = max(a.meet(b).area / min(a.area, b.area) for a in ones for b in others)
        if common > 0.15:
            found += [one.element, other.element]
    return check(2, "overlap", 1 - 0.25 * len(found), found)


def containment(rendering: Rendering) -> Check:
    """Text stays inside the painted box that holds it."""
    out = [t.element for t in rendering.page.texts if t.card and t.rects and not _inside(t.box, t.card, 2.0)]
    return check(2, "containment", 1 - 0.34 * len(out), out)


def margins(rendering: Rendering) -> Check:
    """Text keeps 24 px away from the canvas's edges."""
    safe = Rect(EDGE, EDGE, WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE)
    close = [t.element for t in rendering.page.texts if t.rects and not _inside(t.box, safe, TOLERANCE)]
    return check(2, "margins", 1 - 0.2 * len(close), close)


def alignment(rendering: Rendering) -> Check:
    """Blocks of text share few left edges. SVG text and the cells of tables are left out."""
    blocks: dict[int, list[Rect]] = {}
    for text in rendering.page.texts:
        if text.rects and text.tag not in ("text", "tspan", "td", "th"):
            blocks.setdefault(text.block, []).extend(text.rects)
    edges = sorted(min(r.x for r in rects) for rects in blocks.values())
    if len(edges) < 4:
        return check(2, "alignment", 1)
    distinct = 1 + sum(b - a > 4 for a, b in pairwise(edges))
    return check(
        2, "alignment", ramp(distinct / len(edges), 1.1, 0.75), (), f"{distinct} left edges of {len(edges)} blocks"
    )


def images(rendering: Rendering) -> Check:
    """Pictures were loaded and are not stretched."""
    wrong = []
    for image in rendering.page.images:
        width, height = image.natural
        shown = width > 0 and height > 0 and image.rect.area >= 16
        if not shown or (image.fit == "fill" and abs(image.rect.width / image.rect.height * height / width - 1) > 0.05):
            wrong.append(image.element)
    return check(2, "images", 1 - len(wrong) / max(1, len(rendering.page.images)), wrong)


def _share(rendering: Rendering, name: str, is_wrong: Callable[[Text], bool], weight: float) -> Check:
    """1 minus `weight` times the share of the characters that are wrong."""
    total = sum(len(t.text) for t in rendering.page.texts)
    wrong = [t for t in rendering.page.texts if is_wrong(t)]
    share = sum(len(t.text) for t in wrong) / max(1, total)
    note = f"{share:.0%} of the characters" if wrong else ""
    return check(2, name, 1 - weight * share, [t.element for t in sorted(wrong, key=lambda t: -len(t.text))], note)


def _inside(box: Rect, outer: Rect, tolerance: float) -> bool:
    return (
        box.x >= outer.x - tolerance
        and box.y >= outer.y - tolerance
        and box.right <= outer.right + tolerance
        and box.bottom <= outer.bottom + tolerance
    )
