"""Slides made to break the grader: what a page does to the measuring script, and what markup costs, is scored and never an error."""

import asyncio
import time

import pytest
from slide_pages import slide

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.checking.client import Checker
from arcforge.envs.slides.briefs import Brief, SlideBrief
from arcforge.envs.slides.browser import Renderer, find_chromium
from arcforge.envs.slides.grading import grade_deck
from arcforge.envs.slides.layout_checks import COMPARED, overlap
from arcforge.envs.slides.markup import MOST_ELEMENTS, Unreadable, parse
from arcforge.envs.slides.reading import read
from arcforge.envs.slides.rendering import CANVAS, Page, Rect, Rendering, Text, Unfolded


@pytest.fixture(scope="module")
def tools():
    """An event loop with a browser and a checking process."""
    pytest.importorskip("playwright")
    try:
        find_chromium()
    except UserError as error:
        pytest.skip(str(error))
    runner, renderer, checker = asyncio.Runner(), Renderer(), Checker()
    yield runner, renderer, checker
    runner.run(renderer.close())
    runner.run(checker.close())
    runner.close()


def named(*names):
    """Elements that hide properties of the document, and of a form, behind themselves."""
    own = "".join(f'<form name="{name}"></form><img name="{name}" alt="" style="display: none">' for name in names)
    inner = "".join(f'<input name="{name}" style="display: none">' for name in names)
    return f'{own}<form id="around">{inner}<p class="row" style="margin: 0">The last row</p></form>'


HIDDEN = {
    "of the document": (
        "createRange",
        "querySelectorAll",
        "createTreeWalker",
        "elementsFromPoint",
        "body",
        "documentElement",
    ),
    "of a node": (
        "parentElement",
        "contains",
        "textContent",
        "ownerSVGElement",
        "getRootNode",
        "nodeType",
        "childNodes",
    ),
    "of an element": (
        "localName",
        "id",
        "classList",
        "style",
        "getBoundingClientRect",
        "checkVisibility",
        "getAttribute",
        "tagName",
    ),
    "of a layout": ("offsetTop", "offsetLeft", "currentCSSZoom", "getScreenCTM", "getClientRects", "querySelectorAll"),
    "of a screenshot": (
        "fonts",
        "getAnimations",
        "adoptedStyleSheets",
        "head",
        "defaultView",
        "append",
        "all",
        "documentElement",
    ),
    "of an object": ("__proto__", "constructor", "toString", "hasOwnProperty", "then", "toJSON"),
}


@pytest.mark.browser
@pytest.mark.parametrize("kind", HIDDEN)
def test_names_do_not_hide_a_page_from_the_measuring(tools, kind):
    runner, renderer, _ = tools
    css = "h1 { animation: fade 1000s } @keyframes fade { from { opacity: 0 } }"
    harmless = runner.run(renderer.render(slide(3, css, named(*(f"x-{name}" for name in HIDDEN[kind])))))
    hiding = runner.run(renderer.render(slide(3, css, named(*HIDDEN[kind]))))
    assert (hiding.page, hiding.unfolded) == (harmless.page, harmless.unfolded)
    assert [text.opacity for text in hiding.page.texts] == [1] * 5


@pytest.mark.browser
@pytest.mark.parametrize("where", ["", ";url=http://slide.invalid/", ";url=about:blank", ";url=http://other.invalid/"])
def test_a_page_does_not_load_itself_again(tools, where):
    runner, renderer, _ = tools
    again = f'<meta http-equiv="refresh" content="0{where}">'
    assert runner.run(renderer.render(slide(3, body=again))).page == runner.run(renderer.render(slide(3))).page


@pytest.mark.browser
def test_a_slide_that_takes_too_long_is_an_error(tools):
    async def hurry():
        renderer = Renderer(page_seconds=0.01)
        try:
            await renderer.render(slide())
        finally:
            await renderer.close()

    with pytest.raises(VerifierError, match="could not be rendered"):
        tools[0].run(hurry())


DEEP = "<div>" * 140
COSTLY = {
    "descendants": slide(css="i " + "* " * 12 + "p { color: red }", body=DEEP + "<p>x"),
    "variables": slide(css="p { color: " + "var(--a)" * 9000 + " }", body="<p>x" * 50),
    "inherited variables": slide(css=":root {" + "".join(f"--a{i}: 1;" for i in range(7000)) + "}", body="<p>x" * 1400),
    "attributes": slide(body=f"<p {' '.join(f'a{i}' for i in range(14_000))}>x"),
    "formatting": slide(body="<p>" + "".join(f"<b a={i}>" for i in range(2000)) + "<p>x" * 10_000),
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_markup_is_no_slide_and_costs_little(tools, name):
    """Nor does it hold the event loop up. Each takes more than six CPU seconds on a slow machine."""
    runner = tools[0]

    async def grade():
        checker = Checker(cpu_seconds=1)
        ticks, start = 0, time.monotonic()
        try:
            reading = asyncio.ensure_future(read(checker, {}, COSTLY[name]))
            while not reading.done():
                await asyncio.sleep(0.05)
                ticks += 1
            held = (time.monotonic() - start) / ticks
            with pytest.raises(Unreadable, match="cannot be compared within 1 CPU seconds"):
                await reading
            return held
        finally:
            await checker.close()

    assert runner.run(grade()) < 0.5


def test_a_process_that_refused_a_slide_reads_the_next(tools):
    runner, _, checker = tools
    with pytest.raises(Unreadable):
        runner.run(read(checker, {}, COSTLY["descendants"]))
    assert all(check.score == 1 for check in runner.run(read(checker, {}, slide())))


@pytest.mark.browser
def test_hostile_slides_of_a_deck_score_nothing_and_the_others_what_they_are_worth(tools):
    runner, renderer, checker = tools
    heading = SlideBrief(kind="points", heading="The harbour in one year")
    brief = Brief(topic="x", audience="y", slides=(heading,) * 4)
    written = {
        1: COSTLY["descendants"],
        2: slide(body="<p>\ud800</p>"),
        3: slide(),
        4: slide(3, body=named("createRange")),
    }
    scores = [s.score for s in runner.run(grade_deck(renderer, checker, brief, written)).slides]
    assert scores[:2] == [0, 0] and scores[2] > 0.9 and 0 < scores[3] < 0.9, scores


@pytest.mark.parametrize("html", ["<p>" * (MOST_ELEMENTS + 1), "<img src='\ud800'>", "\udfff"])
def test_what_no_browser_can_be_given_is_no_slide(html):
    with pytest.raises(Unreadable):
        parse(html)


def test_lines_without_end_are_not_compared_without_end():
    """Two texts of 20 000 lines each, one on the other."""
    lines = tuple(Rect(0, y % 700, 10, 10) for y in range(20_000))
    given = {
        "element": "p",
        "tag": "p",
        "size": 20,
        "weight": 400,
        "opacity": 1,
        "visible": 1,
        "clipped": 0,
        "card": None,
    }
    first = Text(text="a", block=1, rects=lines[: COMPARED // 2], **given)
    texts = (first, *(Text(text="a", block=block, rects=lines, **given) for block in (2, 3)))
    unfolded = Unfolded(content=(), body=CANVAS, natural=())
    page = Page(texts=texts, boxes=(), images=(), body=CANVAS)
    start = time.process_time()
    assert overlap(Rendering(page=page, unfolded=unfolded, screenshot=b"")).score < 1
    assert time.process_time() - start < 3
