"""Small inline SVG charts: lines with intervals, histograms, lanes. Colours are in report.css, hovering in report.js.

Own SVG, no plotting package: a curve costs a few kilobytes, follows the page's light or dark theme, and hovers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from arcforge.view.timeline import Lane

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 34
MAX_POINTS = 240
SMOOTH_FROM = 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series. `low` and `high` are the ends of an interval for each point, if there are any. `colour` is 1..8."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Scale:
    """Data to pixels. `categories`: the x values are evenly spaced labels; `log2`: x runs over powers of two."""

    def __init__(self, lines: Sequence[Line], categories: bool, share: bool, log2: bool = False) -> None:
        self.log2 = log2
        xs = sorted({math.log2(x) if log2 else x for line in lines for x, _ in line.points})
        self.categories = xs if categories else []
        self.x_low, self.x_high = (0, max(len(xs) - 1, 1)) if categories else (xs[0], max(xs[-1], xs[0] + 1))
        ys = [y for line in lines for _, y in line.points] + [y for line in lines for y in (*line.low, *line.high)]
        self.y_ticks = [0, 0.25, 0.5, 0.75, 1] if share else ticks(min(ys), max(ys))
        self.y_low, self.y_high = self.y_ticks[0], self.y_ticks[-1]
        if self.y_high <= self.y_low:  # a constant whose neighbours round to it
            self.y_high = self.y_low + max(1.0, abs(self.y_low)) * 1e-6

    def x(self, value: float) -> float:
        position = self.categories.index(value) if self.categories else math.log2(value) if self.log2 else value
        inset = 18 if self.categories else 0
        width = WIDTH - LEFT - RIGHT - 2 * inset
        return LEFT + inset + width * (position - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - self.y_low) / (self.y_high - self.y_low))

    @property
    def x_ticks(self) -> list[float]:
        if self.categories:
            return self.categories
        if self.log2:
            return [2.0**power for power in range(math.ceil(self.x_low), math.floor(self.x_high) + 1)]
        return [t for t in ticks(self.x_low, self.x_high, 5) if self.x_low <= t <= self.x_high]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high] in about `count` steps."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power >= span / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def number(value: float | None) -> str:
    """A number for people: three significant digits, no exponent where it can be avoided."""
    if value is None:
        return "–"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.2e}"


def line_chart(lines: Sequence[Line], x_label: str, *, categories: bool = False, share: bool = False) -> str:
    """Lines over x; `share`: y runs from 0 to 1 and is printed as per cent. Long curves are thinned and smoothed."""
    lines = [_thin(line) for line in lines if line.points]
    if not lines:
        return ""
    scale = Scale(lines, categories, share)
    body = [_grid(scale, x_label, share)]
    for line in lines:
        body.append(_interval(line, scale))
        body.append(_polyline(line, scale, markers=categories or len(line.points) <= 12))
    hover = [
        {"name": line.name, "points": [[round(scale.x(x), 1), number(x), _value(y, share)] for x, y in line.points]}
        for line in lines
    ]
    legend = _legend([(line.name, line.colour) for line in lines]) if len(lines) > 1 else ""
    return legend + _svg("".join(body), WIDTH, HEIGHT, f' data-lines="{escape(json.dumps(hover))}"')


def histogram(edges: Sequence[float], counts: Sequence[float], x_label: str) -> str:
    """Bars between edges (len(edges) == len(counts) + 1), as shares of all; empty ends are cut, wide ranges are in log2."""
    total = sum(counts)
    if not total:
        return ""
    filled = [i for i, count in enumerate(counts) if count]
    edges, counts = edges[filled[0] : filled[-1] + 2], counts[filled[0] : filled[-1] + 1]
    shares = [count / total for count in counts]
    frame = Line("", [(edges[0], 0.0), (edges[-1], max(shares))])
    scale = Scale([frame], categories=False, share=False, log2=edges[0] > 0 and edges[-1] > 4 * edges[0])
    bars = [_grid(scale, x_label, share=True)]
    for left, right, share, count in zip(edges, edges[1:], shares, counts):
        x, y = scale.x(left), scale.y(share)
        width = max(scale.x(right) - x - 1.5, 0.5)
        tip = escape(f"{number(left)} to {number(right)}: {number(count)} ({share:.1%})")
        place = f'x="{x + 0.75:.1f}" y="{y:.1f}" width="{width:.1f}" height="{scale.y(0) - y:.1f}"'
        bars.append(f'<rect class="f1" {place} data-tip="{tip}"/>')
    return _svg("".join(bars), WIDTH, HEIGHT)


def lane_chart(lanes: Sequence[Lane]) -> str:
    """One bar per component: busy parts filled, waits pale; small marks for published weights, updates and failures."""
    width, left, row = 1120, 116, 40
    seconds = max(lane.end for lane in lanes) or 1.0
    scale = (width - left - 24) / seconds
    bottom = len(lanes) * row + 4
    body = []
    for tick in (tick for tick in ticks(0, seconds, 8) if tick <= seconds):
        x = left + tick * scale
        body.append(f'<path class="grid" d="M{x:.1f} 8V{bottom}"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{number(tick)} s</text>')
    for index, lane in enumerate(lanes):
        y = index * row + 14
        body.append(f'<text class="lane" x="{left - 10}" y="{y + 14}" text-anchor="end">{escape(lane.who)}</text>')
        busy = f"{lane.who}: busy {1 - lane.waiting_share:.0%}, waiting {lane.waiting_share:.0%}"
        body.append(_bar("busy", left + lane.start * scale, y, (lane.end - lane.start) * scale, busy))
        for start, end, tip in _visible_waits(lane, 1 / scale):
            body.append(_bar("wait", left + start * scale, y, (end - start) * scale, tip))
        for second, kind in lane.marks:
            x = left + second * scale
            body.append(f'<path class="mark {kind}" d="M{x:.1f} {y - 3}v-6" data-tip="{kind} at {second:.1f} s"/>')
    return _svg("".join(body), width, bottom + 20)


def _visible_waits(lane: Lane, pixel: float) -> list[tuple[float, float, str]]:
    """Waits joined where less than a pixel of work lies between them, so that the page stays small."""
    joined: list[tuple[float, float, str]] = []
    for wait in lane.waits:
        tip = f"{lane.who} waited {wait.end - wait.start:.2f} s" + (f" ({wait.note})" if wait.note else "")
        if joined and wait.start - joined[-1][1] < pixel:
            joined[-1] = (joined[-1][0], wait.end, f"{lane.who}: many short waits")
        else:
            joined.append((wait.start, wait.end, tip))
    return joined


def _bar(kind: str, x: float, y: float, width: float, tip: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(width, 0.4):.1f}" height="20" data-tip="{escape(tip)}"/>'
    )


def _thin(line: Line) -> Line:
    """Means of neighbouring points, so that no curve has more than MAX_POINTS."""
    size = math.ceil(len(line.points) / MAX_POINTS)
    if size <= 1:
        return line
    groups = [line.points[i : i + size] for i in range(0, len(line.points), size)]
    means = [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]
    return Line(line.name, means, line.colour)


def _smooth(points: Sequence[Point]) -> list[Point]:
    """Centred running mean over about a twentieth of the curve."""
    half = max(1, len(points) // 40)
    result = []
    for i, (x, _) in enumerate(points):
        window = points[max(0, i - half) : i + half + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def _polyline(line: Line, scale: Scale, markers: bool) -> str:
    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in points)

    if len(line.points) >= SMOOTH_FROM:
        raw = f'<polyline class="s{line.colour} raw" points="{path(line.points)}"/>'
        return raw + f'<polyline class="s{line.colour}" points="{path(_smooth(line.points))}"/>'
    dots = [
        f'<circle class="f{line.colour} dot" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3.5"/>'
        for x, y in line.points
    ]
    return f'<polyline class="s{line.colour}" points="{path(line.points)}"/>' + ("".join(dots) if markers else "")


def _interval(line: Line, scale: Scale) -> str:
    ends = zip(line.points, line.low, line.high)
    return "".join(
        f'<path class="s{line.colour} whisker" d="M{scale.x(x):.1f} {scale.y(low):.1f}V{scale.y(high):.1f}"/>'
        for (x, _), low, high in ends
    )


def _grid(scale: Scale, x_label: str, share: bool) -> str:
    parts = []
    for tick in scale.y_ticks:
        y = scale.y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_value(tick, share)}</text>')
    for tick in scale.x_ticks:
        parts.append(
            f'<text x="{scale.x(tick):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{number(tick)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _value(value: float, share: bool) -> str:
    return f"{100 * value:.3g}%" if share else number(value)


def _legend(names: Sequence[tuple[str, int]]) -> str:
    items = "".join(f'<span><i class="b{colour}"></i>{escape(name)}</span>' for name, colour in names)
    return f'<div class="legend">{items}</div>'


def _svg(body: str, width: int, height: int, attributes: str = "") -> str:
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img"{attributes}>{body}</svg>'
