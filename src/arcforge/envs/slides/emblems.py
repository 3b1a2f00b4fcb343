"""Small pictures that a brief brings along, as SVG text."""

from __future__ import annotations

import random

COLOURS = ("#1f4e79", "#7a3e65", "#2f6b4f", "#8a5a17")


def emblem(rng: random.Random) -> str:
    """A square picture of overlapping discs around a ring, 240 x 240, different for every state of `rng`."""
    dark = rng.choice(COLOURS)
    discs = "".join(_disc(rng, dark) for _ in range(rng.randint(4, 7)))
    ring = f'<circle cx="120" cy="120" r="108" fill="#ffffff" stroke="{dark}" stroke-width="10"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="240" height="240" viewBox="0 0 240 240">{ring}{discs}</svg>\n'
    )


def _disc(rng: random.Random, colour: str) -> str:
    x, y, radius = rng.randint(60, 180), rng.randint(60, 180), rng.randint(18, 40)
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}" fill-opacity="0.{rng.randint(25, 70)}"/>'
