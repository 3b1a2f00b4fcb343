"""Slides that do what a brief asks, written by templates: what a model is shown first, and what the graders are held to, with
the lazy slides that they have to refuse."""

from __future__ import annotations

import html
import random
from importlib import resources
from typing import NamedTuple

from arcforge.envs.slides.briefs import Brief


class Theme(NamedTuple):
    """Colours of one look. ink on page, white on dark and white on strong have a contrast of at least 4.5."""

    page: str
    ink: str
    quiet: str
    line: str
    dark: str
    strong: str
    soft: str


THEMES = (
    Theme("#f3f6fa", "#1b2733", "#52606d", "#c9d3de", "#16324f", "#1f6f8b", "#9cc3d5"),
    Theme("#f7f4ef", "#2d2620", "#6a5d50", "#dacfc1", "#4a2c2a", "#a4452c", "#e0b59f"),
    Theme("#f2f6f2", "#1d2b22", "#52635a", "#c8d6cc", "#1e3d2f", "#2f7a4f", "#a5cbb3"),
    Theme("#f5f3f8", "#262033", "#5f5870", "#d3cce0", "#33265a", "#6a4fa3", "#bfb0de"),
)


BARE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{heading}</title>
<style>body {{ margin: 0; width: 1280px; height: 720px; }} h1 {{ margin: 48px 64px; font-size: 42px; }}</style>
</head>
<body><h1>{heading}</h1></body>
</html>
"""


def write_headings(brief: Brief) -> list[str]:
    """A valid slide with nothing but the heading for every slide of the brief: what a lazy author would hand in."""
    return [BARE.format(heading=html.escape(slide.heading)) for slide in brief.slides]


def write_slides(brief: Brief, rng: random.Random) -> list[str]:
    """The HTML of every slide of the brief, in one theme."""
    import jinja2

    source = resources.files("arcforge.envs.slides").joinpath("slide.html.j2").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    look = {"theme": rng.choice(THEMES), "upright": rng.random() < 0.5}
    return [
        template.render(slide=slide, number=number, topic=brief.topic, audience=brief.audience, **look)
        for number, slide in enumerate(brief.slides, 1)
    ]
