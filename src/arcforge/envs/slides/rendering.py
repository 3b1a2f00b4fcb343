"""What a browser tells about a rendered slide: plain values, in CSS pixels, with the origin at the page's top left."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from arcforge.core.messages import Value

if TYPE_CHECKING:
    import numpy as np

WIDTH, HEIGHT = 1280, 720
"""The canvas: strictly 16:9 (GLM-5 report, section 4.2.5)."""


class Rect(NamedTuple):
    """An axis-aligned rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def area(self) -> float:
        return self.width * self.height

    def meet(self, other: Rect) -> Rect:
        """The common part, of width or height 0 when there is none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Rect(x, y, max(0.0, min(self.right, other.right) - x), max(0.0, min(self.bottom, other.bottom) - y))


CANVAS = Rect(0, 0, WIDTH, HEIGHT)


def union(rects: list[Rect]) -> Rect:
    """The smallest rectangle around all of them; all zeros for none."""
    if not rects:
        return Rect(0, 0, 0, 0)
    x, y = min(r.x for r in rects), min(r.y for r in rects)
    return Rect(x, y, max(r.right for r in rects) - x, max(r.bottom for r in rects) - y)


class Text(Value):
    """One run of text. `rects` are its lines.

    size: the font size after all transforms. opacity: of the colour and of all ancestors. visible: the share of sampled points
    at which nothing opaque lies over it. clipped: the share of its area that an ancestor's overflow cuts off. card: the
    box of the nearest ancestor that paints something, the page aside. block: number of its block-level element.
    """

    text: str
    element: str
    tag: str
    block: int
    rects: tuple[Rect, ...]
    size: float
    weight: float
    opacity: float
    visible: float
    clipped: float
    card: Rect | None

    @property
    def box(self) -> Rect:
        return union(list(self.rects))


class Box(Value):
    """An element that paints something. has_text: some text lies inside it in the document.

    opacity: of what it paints and of all ancestors. visible: as of a text.
    """

    rect: Rect
    has_text: bool
    opacity: float
    visible: float


class Image(Value):
    """An `img` element. natural: the picture's own size, zeros when it could not be loaded.

    opacity, visible: as of a box, zeros when it is not displayed.
    """

    element: str
    source: str
    rect: Rect
    natural: tuple[float, float]
    fit: str
    opacity: float
    visible: float


class Placed(Value):
    """Something that has to lie inside the canvas."""

    element: str
    rect: Rect


class Page(Value):
    """The slide as it is written."""

    texts: tuple[Text, ...]
    boxes: tuple[Box, ...]
    images: tuple[Image, ...]
    body: Rect


class Unfolded(Value):
    """The slide with nothing cut off (`content`, `body`), and with nothing stretched either (`natural`: its leaves)."""

    content: tuple[Placed, ...]
    body: Rect
    natural: tuple[Rect, ...]


class Rendering(Value):
    """One rendered slide. `screenshot` is a PNG of the canvas."""

    page: Page
    unfolded: Unfolded
    screenshot: bytes

    def pixels(self) -> np.ndarray:
        """The screenshot as uint8 [HEIGHT, WIDTH, 3]."""
        return decode(self.screenshot)


def decode(picture: bytes) -> np.ndarray:
    """A picture file as uint8 [height, width, 3]. UserError without Pillow."""
    # The process that reads markup needs the canvas's size alone, and numpy's threads would take its address space.
    import numpy as np

    from arcforge.envs.slides.libraries import pillow

    with pillow().open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))
