"""Level 1: what the markup alone tells (GLM-5 report, section 4.2.5): parsable, position, spacing, colour, typography,
saturation, pictures, repetition, and what is written only to be measured. Each check is a pure function."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Mapping

from arcforge.envs.slides import colours
from arcforge.envs.slides.check import Check, check, ramp
from arcforge.envs.slides.colours import Colour
from arcforge.envs.slides.markup import Markup, Node, lengths, pixels
from arcforge.envs.slides.rendering import HEIGHT, WIDTH

# Errors that a browser repairs without any effect on what is shown.
HARMLESS = frozenset({"self-closing-flag-on-end-tag", "non-void-element-with-trailing-solidus"})
FORBIDDEN = frozenset({"script", "iframe", "frame", "object", "embed", "template", "link", "base", "applet", "canvas"})
SPACINGS = ("padding", "margin", "gap")
LARGE_PX, LARGE_BOLD_PX = 24.0, 18.66  # WCAG's large text: 18 pt, or 14 pt bold
LARGEST_SPACING = 120.0
VIVID = 0.9
REPEATED_CHARACTERS = 20
DATA = re.compile(r"data:([\w/+.-]*)((?:;[\w=-]+)*?)(;base64)?,(.*)", re.DOTALL)


def markup_level(markup: Markup, files: Mapping[str, bytes]) -> list[Check]:
    """Level 1 of one slide."""
    return [
        parsable(markup),
        position(markup),
        spacing(markup),
        contrast(markup),
        typography(markup),
        saturation(markup),
        missing_images(markup, files),
        duplicate_images(markup, files),
        repetition(markup),
        concealment(markup),
    ]


def parsable(markup: Markup) -> Check:
    """A complete document whose HTML and CSS need no repair and which contains nothing but a page."""
    errors = [error for error in (*markup.errors, *markup.css_errors) if error not in HARMLESS]
    foreign = [n.label for n in markup.root.walk() if n.tag in FORBIDDEN]
    if not markup.texts():
        return check(1, "parsable", 0, ["body"], "no text")
    if foreign:
        return check(1, "parsable", 0, foreign, "not allowed in a slide")
    return check(1, "parsable", 1 - 0.25 * len(errors), (), ", ".join(dict.fromkeys(errors)))


def position(markup: Markup) -> Check:
    """Explicit offsets and sizes stay inside the canvas."""
    wrong = []
    for node in markup.body.walk():
        inset = node.style.get("position") in ("absolute", "fixed")
        x, y = (_pixels(node, name) for name in ("left", "top"))
        width, height = (_pixels(node, name) or 0.0 for name in ("width", "height"))
        beyond = (x or 0) + width > WIDTH or (y or 0) + height > HEIGHT or (x or 0) < 0 or (y or 0) < 0
        if (inset and beyond and _own_text(node)) or width > WIDTH or height > HEIGHT:
            wrong.append(node.label)
    return check(1, "position", 1 - 0.25 * len(wrong), wrong, "beyond the canvas" if wrong else "")


def spacing(markup: Markup) -> Check:
    """Paddings, margins and gaps are moderate, never negative, and of few different lengths."""
    used: Counter[float] = Counter()
    extreme = []
    for node in markup.body.walk():
        for name, value in node.style.items():
            if not name.startswith(SPACINGS) and name != "row-gap":
                continue
            found = lengths(value, node.size)
            used.update(abs(length) for length in found if length)
            if any(length > LARGEST_SPACING or length < -2 for length in found):
                extreme.append(node.label)
    variety = ramp(len(used), 24, 12)
    return check(1, "spacing", variety - 0.2 * len(extreme), extreme, f"{len(used)} different lengths")


def contrast(markup: Markup) -> Check:
    """WCAG 2.2 AA: 4.5 to 1, 3 to 1 for large text; the share of characters that have it. Unknown backgrounds are left out."""
    total, low, worst = 0, 0, []
    for node in markup.texts():
        ratio = text_contrast(node)
        if ratio is None:
            continue
        total += len(node.text)
        if ratio < needed_contrast(node.size, node.style.get("font-weight") in ("bold", "600", "700", "800", "900")):
            low += len(node.text)
            worst.append((ratio, node.label))
    lowest = f"lowest {min(worst)[0]:.1f}" if worst else ""
    return check(1, "contrast", 1 - 2 * low / max(1, total), [label for _, label in sorted(worst)], lowest)


def needed_contrast(size: float, bold: bool) -> float:
    """The WCAG AA ratio for text of this size in px."""
    return 3.0 if size >= (LARGE_BOLD_PX if bold else LARGE_PX) else 4.5


def text_contrast(node: Node) -> float | None:
    """Contrast of an element's text with the colours painted behind it; None where a gradient or a picture is."""
    name = "fill" if node.tag in ("text", "tspan") else "color"
    text = colours.parse(node.style.get(name, "black"))
    layers: list[Colour] = []
    for above in node.above():
        if "url(" in above.style.get("background", "") or "gradient" in _background(above):
            return None
        if above.tag == "svg" and any(child.tag == "rect" for child in above.walk()):
            return None
        found = colours.parse(above.style.get("background-color", "") or "transparent")
        if found is not None and found.alpha > 0:
            layers.append(found)
            if found.alpha == 1:
                break
    if text is None:
        return None
    behind = colours.WHITE
    for layer in reversed(layers):
        behind = layer.over(behind)
    return colours.contrast(text.over(behind), behind)


def typography(markup: Markup) -> Check:
    """At most two families and six sizes, nothing below 14 px, headings above the text, one main heading."""
    texts = markup.texts()
    families = {n.style.get("font-family", "").split(",")[0].strip(" '\"").lower() for n in texts}
    sizes = {round(node.size) for node in texts}
    small = [n for n in texts if n.size < 14]
    headings = [n for n in markup.body.walk() if n.tag == "h1"]
    title = max((n.size for h in headings for n in h.walk()), default=0.0)
    body = max((n.size for n in texts if n.tag in ("p", "li", "td")), default=0.0)
    share = sum(len(n.text) for n in small) / max(1, sum(len(n.text) for n in texts))
    parts = [
        ramp(len(families), 4, 2),
        ramp(len(sizes), 10, 6),
        ramp(share, 0.5, 0.0),
        float(len(headings) == 1 and title >= body),
    ]
    note = f"{len(families)} families, {len(sizes)} sizes, {len(headings)} h1"
    return check(1, "typography", sum(parts) / 4, [n.label for n in small], note)


def saturation(markup: Markup) -> Check:
    """At most two vivid hues, and no vivid background of the page. Hues are counted in twelfths of the circle."""
    vivid: dict[int, list[str]] = {}
    for node in markup.body.walk():
        for name in ("color", "background-color", "fill"):
            found = colours.parse(node.style.get(name, ""))
            if found and found.alpha > 0.5 and found.hsl[1] >= VIVID and 0.3 <= found.hsl[2] <= 0.7:
                vivid.setdefault(round(found.hsl[0] * 12) % 12, []).append(node.label)
    page = colours.parse(markup.body.style.get("background-color", "")) or colours.WHITE
    glaring = page.hsl[1] >= VIVID and 0.3 <= page.hsl[2] <= 0.7
    offending = [label for labels in list(vivid.values())[2:] for label in labels] + ["body"] * glaring
    return check(1, "saturation", ramp(len(vivid), 5, 2) - 0.5 * glaring, offending, f"{len(vivid)} vivid hues")


def missing_images(markup: Markup, files: Mapping[str, bytes]) -> Check:
    """Every picture is one of the task's files or a data URI that decodes; anything else is hallucinated."""
    sources = _sources(markup)
    missing = [node.label for node, source in sources if source not in files and embedded(source) is None]
    return check(1, "missing images", 1 - len(missing) / max(1, len(sources)), missing, f"{len(sources)} pictures")


def duplicate_images(markup: Markup, files: Mapping[str, bytes]) -> Check:
    """No picture is shown twice, whatever it is called."""
    seen: set[str] = set()
    again = []
    sources = _sources(markup)
    for node, source in sources:
        content = files.get(source, embedded(source) or source.encode())
        digest = hashlib.sha256(content).hexdigest()
        if digest in seen:
            again.append(node.label)
        seen.add(digest)
    return check(1, "duplicate images", 1 - 2 * len(again) / max(1, len(sources)), again)


def embedded(source: str) -> bytes | None:
    """The content of a data URI; None for anything else and for one that does not decode."""
    found = DATA.fullmatch(source)
    if found is None or not found[4]:
        return None
    if not found[3]:
        return found[4].encode()
    try:
        return base64.b64decode(found[4], validate=True)
    except (binascii.Error, ValueError):
        return None


def repetition(markup: Markup) -> Check:
    """The share of the characters that say again what was said."""
    seen: set[str] = set()
    total, repeated, elements = 0, 0, []
    for node in markup.texts():
        text = " ".join(node.text.lower().split())
        if len(text) < REPEATED_CHARACTERS:
            continue
        total += len(text)
        if text in seen:
            repeated += len(text)
            elements.append(node.label)
        seen.add(text)
    return check(1, "repetition", 1 - 2 * repeated / max(1, total), elements)


def concealment(markup: Markup) -> Check:
    """Nothing hides text, cuts it off or scales it down (hard truncation and canvas shrinking of the report)."""
    hiding = [node.label for node in markup.texts() if any(_conceals(above) for above in node.above())]
    shrinking = [n.label for n in markup.root.walk() if _shrinks(n) and _own_text(n)]
    return check(1, "concealment", 1 - 0.5 * len({*hiding, *shrinking}), [*hiding, *shrinking])


def _conceals(node: Node) -> bool:
    style = node.style
    return (
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or (_number(style.get("opacity", "1")) < 0.3)
        or node.size < 6
        or (pixels(style.get("text-indent", "0")) or 0) < -100
        or style.get("color") == "transparent"
        or ("clip-path" in style and style["clip-path"] != "none")
        or any("line-clamp" in name for name in style)
        or "hidden" in node.attributes
    )


def _shrinks(node: Node) -> bool:
    """The element is drawn smaller than it is laid out."""
    transform = node.style.get("transform", "")
    factors = [float(f) for f in re.findall(r"scale(?:3d|[XY])?\(\s*(\d*\.?\d+)", transform)]
    factors += [float(f) for f in re.findall(r"matrix\(\s*(-?\d*\.?\d+)", transform)]
    for name in ("zoom", "scale"):
        if name in node.style:
            value = node.style[name].split()[0] if node.style[name] else "1"
            factors.append(_number(value.rstrip("%")) / (100 if value.endswith("%") else 1))
    return any(factor < 0.95 for factor in factors)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _pixels(node: Node, name: str) -> float | None:
    return pixels(node.style.get(name, ""), node.size)


def _background(node: Node) -> str:
    return node.style.get("background", "") + node.style.get("background-image", "")


def _own_text(node: Node) -> bool:
    return any(below.text.strip() for below in node.walk())


def _sources(markup: Markup) -> list[tuple[Node, str]]:
    """(element, source) of every picture: `img`, SVG `image`, `url()` of backgrounds; fragments (`#id`) are none."""
    found = []
    for node in markup.body.walk():
        if node.tag in ("img", "image"):
            found.append((node, _reference(node)))
        for name in ("background", "background-image"):
            urls = re.findall(r"url\(\s*['\"]?(.*?)['\"]?\s*\)", node.style.get(name, ""))
            found += [(node, url) for url in urls if not url.startswith("#")]
    return found


def _reference(node: Node) -> str:
    """`src`, or SVG's `href` with or without its namespace."""
    return node.attributes.get("src") or next((v for name, v in node.attributes.items() if name.endswith("href")), "")
