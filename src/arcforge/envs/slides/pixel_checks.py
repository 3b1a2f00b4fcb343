"""Level 3: what an eye sees (GLM-5 report, section 4.2.5), from the screenshot: whitespace, balance, colours, legibility,
and pages that look the same. Pixels are uint8 [height, width, 3]. Each check is a pure function.

A cell of CELL x CELL pixels is inked when its brightness varies; flat areas of any colour and smooth gradients are empty.
"""

from __future__ import annotations

import numpy as np

from arcforge.envs.slides.check import Check, check, ramp
from arcforge.envs.slides.layout_checks import is_visible
from arcforge.envs.slides.libraries import pillow
from arcforge.envs.slides.markup_checks import needed_contrast
from arcforge.envs.slides.rendering import Rect, Text

CELL = 16
INK = 12  # levels of 255 between the darkest and the brightest pixel of an inked cell
LEGIBLE = 1.8  # contrast below which text counts as unseen
ALIKE = 0.04  # share of differing fingerprint bits up to which two pages are the same
REC_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)
LEVELS = np.arange(256, dtype=np.float32) / 255
LINEAR = np.where(LEVELS <= 0.04045, LEVELS / 12.92, ((LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""sRGB level -> linear light."""


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Rec. 709 luma, float32 [height, width]."""
    return pixels.astype(np.float32) @ REC_709


def ink(pixels: np.ndarray) -> np.ndarray:
    """Which cells something is drawn in, bool [height / CELL, width / CELL]."""
    luma = brightness(pixels)
    rows, columns = luma.shape[0] // CELL, luma.shape[1] // CELL
    cells = luma[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    return cells.max((1, 3)) - cells.min((1, 3)) > INK


def largest_empty(cells: np.ndarray) -> Rect:
    """The largest rectangle of cells without ink, in cells."""
    best, heights = Rect(0, 0, 0, 0), np.zeros(cells.shape[1], int)
    for row, inked in enumerate(cells):
        heights = np.where(inked, 0, heights + 1)
        stack: list[tuple[int, int]] = []  # (first column, height), heights rising
        for column, height in enumerate([*heights.tolist(), 0]):
            start = column
            while stack and stack[-1][1] >= height:
                start, tall = stack.pop()
                if tall * (column - start) > best.area:
                    best = Rect(start, row - tall + 1, column - start, tall)
            stack.append((start, height))
    return best


def whitespace(pixels: np.ndarray, title: bool) -> Check:
    """Neither nearly empty nor crammed."""
    share = float(ink(pixels).mean())
    low = (0.01, 0.04) if title else (0.04, 0.12)
    return check(3, "whitespace", min(ramp(share, *low), ramp(share, 0.85, 0.65)), (), f"{share:.0%} inked")


def empty_region(pixels: np.ndarray, title: bool) -> Check:
    """No large rectangle without anything in it."""
    cells = ink(pixels)
    empty = largest_empty(cells)
    share = empty.area / cells.size
    x, y, width, height = (round(v * CELL) for v in empty)
    note = f"{share:.0%} at {x},{y} {width}x{height}"
    return check(3, "empty region", ramp(share, 0.8, 0.55) if title else ramp(share, 0.45, 0.22), (), note)


def balance(pixels: np.ndarray, title: bool) -> Check:
    """The ink's centre is near the canvas's, and all quarters have some. Titles may lean to a side."""
    cells = ink(pixels)
    if not cells.any():
        return check(3, "balance", 0, ["body"], "nothing drawn")
    rows, columns = np.nonzero(cells)
    x, y = (columns.mean() + 0.5) / cells.shape[1] - 0.5, (rows.mean() + 0.5) / cells.shape[0] - 0.5
    half_y, half_x = cells.shape[0] // 2, cells.shape[1] // 2
    quarters = [q.mean() for half in (cells[:half_y], cells[half_y:]) for q in (half[:, :half_x], half[:, half_x:])]
    used = sum(q > 0.03 for q in quarters) / 4
    off = max(abs(x), abs(y))
    score = ramp(off, 0.4, 0.28) if title else 0.5 * ramp(off, 0.25, 0.12) + 0.5 * ramp(used, 0.5, 1.0)
    return check(3, "balance", score, (), f"centre {x:+.2f},{y:+.2f}")


def palette(pixels: np.ndarray) -> Check:
    """At most eight colours of 1 % or more of the canvas, and little of it glaring."""
    small = pillow().fromarray(pixels).resize((320, 180), 0).quantize(32, 0)
    counts = sorted((n for n, _ in small.getcolors() or []), reverse=True)
    dominant = sum(n >= 0.01 * 320 * 180 for n in counts)
    channels = pixels[::4, ::4].astype(np.float32) / 255
    high, low = channels.max(2), channels.min(2)
    glaring = float(((high - low > 0.85) & (high > 0.9)).mean())
    score = ramp(dominant, 16, 9) * ramp(glaring, 0.5, 0.15)
    return check(3, "palette", score, (), f"{dominant} dominant colours, {glaring:.0%} glaring")


def legibility(pixels: np.ndarray, texts: tuple[Text, ...]) -> Check:
    """WCAG AA contrast of text as it is drawn, gradients, pictures and filters included; by characters."""
    total, low, elements = 0, 0, []
    for text in texts:
        if not is_visible(text):
            continue
        total += len(text.text)
        ratio = drawn_contrast(pixels, text)
        # Thin strokes are drawn lighter than their colour, so a tenth less is granted.
        if ratio < 0.9 * needed_contrast(text.size, text.weight >= 600):
            low += len(text.text)
            elements.append((ratio, text.element))
    note = f"lowest {min(elements)[0]:.1f}" if elements else ""
    return check(3, "legibility", 1 - 2 * low / max(1, total), [e for _, e in sorted(elements)], note)


def drawn_contrast(pixels: np.ndarray, text: Text) -> float:
    """WCAG contrast between the darkest and the brightest hundredth of the pixels under a text; 1 off the canvas."""
    best = 1.0
    for rect in text.rects:
        part = pixels[max(0, int(rect.y)) : max(0, round(rect.bottom)), max(0, int(rect.x)) : max(0, round(rect.right))]
        if part.size == 0:
            continue
        luminance = LINEAR[part.reshape(-1, 3)] @ REC_709
        low, high = np.percentile(luminance, (1, 99))
        best = max(best, (high + 0.05) / (low + 0.05))
    return float(best)


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """The difference hash of a picture: bool [18 * 32], whether each area is brighter than its right neighbour."""
    grey = pillow().fromarray(pixels).convert("L").resize((33, 18), 1)
    areas = np.asarray(grey, np.int16)
    return (areas[:, 1:] - areas[:, :-1] > 2).ravel()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The share of bits in which two fingerprints differ."""
    return float((one != other).mean())
