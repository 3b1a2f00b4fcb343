"""Colours: CSS text to sRGB, WCAG 2.2 relative luminance and contrast, HSL saturation and hue."""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

from tinycss2.color4 import parse_color


class Colour(NamedTuple):
    """sRGB in [0, 1] with its opacity."""

    red: float
    green: float
    blue: float
    alpha: float = 1.0

    def over(self, below: Colour) -> Colour:
        """This colour painted on an opaque one."""
        red, green, blue = (self.alpha * mine + (1 - self.alpha) * other for mine, other in zip(self[:3], below[:3]))
        return Colour(red, green, blue)

    @property
    def luminance(self) -> float:
        """WCAG relative luminance, 0 for black and 1 for white."""
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in self[:3])
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    @property
    def hsl(self) -> tuple[float, float, float]:
        """(hue, saturation, lightness), each in [0, 1]."""
        hue, lightness, saturation = colorsys.rgb_to_hls(*self[:3])
        return hue, saturation, lightness


WHITE, BLACK = Colour(1, 1, 1), Colour(0, 0, 0)


def parse(text: str) -> Colour | None:
    """A CSS colour, None for what is no colour, `currentcolor`, or a space that sRGB conversion is not defined for."""
    found: Any = parse_color(text)
    if found is None or isinstance(found, str):
        return None
    try:
        red, green, blue = found.to("srgb").coordinates
    except NotImplementedError:
        return None
    return Colour(*(min(1.0, max(0.0, c)) for c in (red, green, blue)), alpha=found.alpha)


def contrast(one: Colour, other: Colour) -> float:
    """WCAG contrast ratio of two opaque colours, 1 to 21."""
    high, low = sorted((one.luminance, other.luminance), reverse=True)
    return (high + 0.05) / (low + 0.05)
