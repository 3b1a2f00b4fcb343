"""Slides in a real browser: honest ones score high, no known trick raises a score, and a dead browser is no score."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
from slide_pages import LINES, slide
from slide_processes import alive, below, browsers, gone, pages

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.checking.client import Checker
from arcforge.envs.registry import family
from arcforge.envs.slides import browser as slides_browser
from arcforge.envs.slides.briefs import Point, SlideBrief, Table, make
from arcforge.envs.slides.browser import Renderer, find_chromium
from arcforge.envs.slides.content import content, has_bars, visible_text
from arcforge.envs.slides.demonstrations import write_slides
from arcforge.envs.slides.grading import grade_deck
from arcforge.envs.slides.layout_checks import real_size
from arcforge.envs.slides.markup import parse
from arcforge.envs.slides.markup_checks import markup_level
from arcforge.envs.slides.score import compliance, is_16_to_9, page_score

pytestmark = pytest.mark.browser


class Browser:
    """One browser on one event loop for the whole file, remembering what it rendered."""

    def __init__(self):
        self.runner, self.renderer, self.checker, self.known = asyncio.Runner(), Renderer(), Checker(), {}

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def render(self, html, **files):
        if html not in self.known:
            self.known[html] = self.run(self.renderer.render(html, files))
        return self.known[html]

    def grade(self, brief, written):
        return self.run(grade_deck(self.renderer, self.checker, brief, written))

    def score(self, html, title=False):
        rendering = self.render(html)
        return page_score(markup_level(parse(html), {}), rendering, rendering.pixels(), title)

    def said(self, brief, html, **files):
        rendering = self.render(html, **files)
        pixels = rendering.pixels()
        return content(brief, rendering, pixels, visible_text(rendering, pixels))


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright")
    try:
        find_chromium()
    except UserError as error:
        pytest.skip(str(error))
    made = Browser()
    yield made
    made.run(made.renderer.close())
    made.run(made.checker.close())
    made.runner.close()


def test_an_honest_slide_scores_high(browser):
    score = browser.score(slide())
    assert score.quality > 0.95 and is_16_to_9(score), score


NARROW = "overflow: hidden; white-space: nowrap; width: 500px; height: 34px; padding: 0 24px"
CLAMPED = "display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 1; overflow: hidden; width: 600px; padding: 4px"
TOO_MUCH = {
    "hard truncation": "body { overflow: hidden; }",
    "truncation of boxes": ".row { max-height: 62px; overflow: hidden; white-space: nowrap }",
    "ellipsis": f".row {{ text-overflow: ellipsis; {NARROW} }}",
    "line clamp": f".row {{ {CLAMPED} }}",
    "zoom": "html { zoom: 0.6 } body { width: 2133px; height: 1200px }",
    "transform": "body { transform: scale(0.6); transform-origin: 0 0; width: 2133px; height: 1200px }",
    "tiny fonts": "body { font-size: 9px } h1 { font-size: 12px } .row { padding: 24px }",
    "half canvas": "body { width: 640px; height: 360px; font-size: 8px } .row { padding: 2px; margin: 2px }",
}


@pytest.mark.parametrize("trick", TOO_MUCH)
def test_too_much_text_is_not_saved_by(browser, trick):
    """The honest versions: fewer words that fit, and the same words that visibly do not."""
    tricky = browser.score(slide(9, TOO_MUCH[trick]))
    assert tricky.quality < 0.75 * browser.score(slide()).quality, tricky
    if "truncation" in trick:
        assert tricky.quality <= browser.score(slide(9)).quality


COLUMN = "body { display: flex; flex-direction: column; "
TOO_LITTLE = {
    "padding": (".row { padding: 62px 24px }", ""),
    "gap": (COLUMN + "gap: 70px }", ""),
    "space between": (COLUMN + "justify-content: space-between }", ""),
    "stretched boxes": (COLUMN + "} .row { flex: 1 }", ""),
    "stretched grid": ("body { display: grid; grid-template-rows: auto 1fr 1fr 1fr }", ""),
    "line height": (".row { line-height: 110px }", ""),
    "absolute footer": ("", '<p style="position: absolute; top: 670px; left: 64px; margin: 0">Harbour</p>'),
    "empty boxes": ("", '<div style="height: 250px; background-color: #c9d3de"></div>'),
    "repeated text": ("", f'<p class="row">{LINES[0]}</p>' * 3),
}


@pytest.mark.parametrize("trick", TOO_LITTLE)
def test_too_little_text_is_not_saved_by(browser, trick):
    """The honest versions: more words that fill the page, and the same words on a page that is only as high as they are."""
    tricky, honest = browser.score(slide(3, *TOO_LITTLE[trick])), browser.score(slide(3, "body { height: auto }"))
    assert tricky.quality <= honest.quality + 1e-9, (tricky, honest)
    assert tricky.quality < 0.75 * browser.score(slide()).quality


FACT = "Berth 7 opens on 14 August"
BRIEF = SlideBrief(kind="points", heading="The harbour in one year", points=(Point(text=FACT, facts=("14 August",)),))
PLACE = "position: absolute; left: 700px; top: 60px; margin: 0"
COVER = "position: absolute; left: 690px; top: 50px; width: 560px; height: 50px; background-color: #f4f6f8"
HIDDEN = {
    "not displayed": f'<p style="display: none">{FACT}</p>',
    "opacity": f'<p style="{PLACE}; opacity: 0.02">{FACT}</p>',
    "colour of the page": f'<p style="{PLACE}; color: #f4f6f8">{FACT}</p>',
    "one pixel": f'<p style="font-size: 1px; margin: 0">{FACT}</p>',
    "off the canvas": f'<p style="position: absolute; left: -900px; top: 60px">{FACT}</p>',
    "covered": f'<p style="{PLACE}">{FACT}</p><div style="{COVER}"></div>',
    "attribute": f'<div title="{FACT}" data-fact="{FACT}"></div>',
}


@pytest.mark.parametrize("trick", HIDDEN)
def test_hidden_words_do_not_count(browser, trick):
    html = slide(6, body=HIDDEN[trick])
    assert browser.said(BRIEF, html).missing == ("fact: 14 August",)
    assert browser.score(html).quality <= browser.score(slide()).quality


def test_words_that_can_be_seen_count(browser):
    assert browser.said(BRIEF, slide(5, body=f'<p class="row">{FACT}</p>')).share == 1


def test_real_sizes_are_told(browser):
    """1280x1015 shown as 1280x720 and 1280x493 shown as 1280x720."""
    low = "position: absolute; top: 980px; height: 35px; margin: 0; background-color: #ffffff"
    tall = slide(0, "body { overflow: hidden }", f'<p style="{low}">low</p>')
    assert real_size(browser.render(tall)) == pytest.approx((1280, 1015), abs=2)
    assert real_size(browser.render(slide(3, *TOO_LITTLE["space between"])))[1] < 500
    assert real_size(browser.render(slide())) == (1280, 720)


def test_scripts_do_not_run_and_forge_nothing(browser):
    forged = "<script>Element.prototype.getBoundingClientRect = () => ({}); document.body.innerHTML = 'x'</script>"
    rendering = browser.render(slide(9, body=forged))
    assert real_size(rendering)[1] > 730 and len(rendering.page.texts) == 10
    assert browser.score(slide(9, body=forged)).quality == 0


def test_only_the_tasks_files_are_loaded(browser, monkeypatch):
    """By the router's doing: Chromium's own guard of the local network, which the server stands in, is off."""
    open_network = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
    monkeypatch.setattr(slides_browser, "FLAGS", (*slides_browser.FLAGS, open_network))

    async def render_once(html, files):
        renderer = Renderer()
        try:
            return await renderer.render(html, files)
        finally:
            await renderer.close()

    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'
    with serving(svg) as (address, asked):
        with urlopen(f"{address}/heard.svg", timeout=5) as answer:
            assert answer.read() == svg
        sources = ("ok.svg", "gone.svg", f"{address}/x.svg", "file:///etc/hostname")
        pictures = "".join(f'<img src="{source}" alt="">' for source in sources)
        behind = f"body {{ background-image: url({address}/y.svg) }}"
        imported = f"<style>@import url({address}/z.css);</style>"
        rendering = browser.run(render_once(slide(1, behind, pictures + imported), {"ok.svg": svg}))
    assert [image.natural for image in rendering.page.images] == [(40, 20), (0, 0), (0, 0), (0, 0)]
    assert asked == ["/heard.svg"]


@contextlib.contextmanager
def serving(svg):
    """A server on this machine that has one picture under every name: (its address, the paths it was asked for)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/svg+xml")
            self.send_header("Content-Length", str(len(svg)))
            self.end_headers()
            self.wfile.write(svg)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(10)


def test_overlap_and_text_outside_its_box_are_seen(browser):
    over = '<p style="position: absolute; left: 90px; top: 130px; margin: 0">Laid over the first row of all</p>'
    assert browser.score(slide(body=over))["overlap"].score < 1 == browser.score(slide())["overlap"].score
    narrow = "left: 900px; top: 40px; width: 90px; height: 40px; background-color: #ffffff; white-space: nowrap"
    out = f'<div style="position: absolute; {narrow}">Longer than its box</div>'
    assert browser.score(slide(body=out))["containment"].elements == ("body>div",)


def bars(heights, css="background-color: #1f6f8b", left=900):
    style = f"position: absolute; width: 60px; {css}"
    places = [f"left: {left + 80 * i}px; top: {600 - high}px; height: {high}px" for i, high in enumerate(heights)]
    return "".join(f'<div style="{style}; {place}"></div>' for place in places)


def svg_bars(heights, css):
    rects = [f'<rect x="{80 * i}" y="{200 - h}" width="60" height="{h}" style="{css}"/>' for i, h in enumerate(heights)]
    return f'<svg style="position: absolute; left: 900px; top: 400px" width="240" height="200">{"".join(rects)}</svg>'


def test_bars_have_to_be_in_proportion(browser):
    assert drawn(browser, bars(HEIGHTS)) and not drawn(browser, bars((100, 150, 120)))


TABLE = Table(measure="m", unit="u", rows=(("a", 100), ("b", 250), ("c", 180)))
HEIGHTS = (60, 150, 108)
OVER = '<div style="position: absolute; left: 880px; top: 380px; width: 300px; height: 240px; background-color: #f4f6f8"></div>'
UNSEEN_BARS = {
    "off the canvas": bars(HEIGHTS, left=1300),
    "half off the canvas": bars(HEIGHTS, left=1250),
    "covered": bars(HEIGHTS) + OVER,
    "colour of the page": bars(HEIGHTS, "background-color: #f4f6f8"),
    "opacity": bars(HEIGHTS, "background-color: #1f6f8b; opacity: 0.01"),
    "alpha": bars(HEIGHTS, "background-color: rgb(31 111 139 / 0.01)"),
    "alpha of another space": bars(HEIGHTS, "background-color: color(display-p3 0 0.4 0.5 / 0.05)"),
    "transparent filling": svg_bars(HEIGHTS, "fill: #1f6f8b; fill-opacity: 0.05"),
    "transparent colour": svg_bars(HEIGHTS, "fill: rgba(31, 111, 139, 0.05)"),
}
SEEN_BARS = {
    "wide gamut": bars(HEIGHTS, "background-color: color(display-p3 1 0.3 0)"),
    "gradient": bars(HEIGHTS, "background: linear-gradient(#1f6f8b, #9cc3d5)"),
    "outlined": bars(HEIGHTS, "border: 3px solid #1f6f8b; box-sizing: border-box"),
    "filled": svg_bars(HEIGHTS, "fill: #1f6f8b"),
}


def drawn(browser, body):
    rendering = browser.render(slide(3, body=body))
    return has_bars(rendering, rendering.pixels(), TABLE)


@pytest.mark.parametrize("name", [*UNSEEN_BARS, *SEEN_BARS])
def test_bars_count_when_they_can_be_seen(browser, name):
    assert drawn(browser, (UNSEEN_BARS | SEEN_BARS)[name]) == (name in SEEN_BARS)


AT = "position: absolute; left: 900px; top: 400px; width: 160px; height: 160px"
PICTURES = {
    "seen": (f"{AT}", "", True),
    "without a size": (f"{AT}; width: 0", "", False),
    "off the canvas": (f"{AT}; left: 1270px", "", False),
    "covered": (AT, OVER, False),
    "opacity": (f"{AT}; opacity: 0.01", "", False),
    "filtered": (f"{AT}; filter: opacity(0)", "", False),
    "not displayed": ("display: none", "", False),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_counts_when_it_can_be_seen(browser, name):
    css, after, seen = PICTURES[name]
    brief = SlideBrief(kind="title", heading="The harbour in one year", image="disc.svg")
    disc = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="19"/></svg>'
    html = slide(3, body=f'<img src="disc.svg" alt="Disc" style="{css}">{after}')
    assert browser.said(brief, html, **{"disc.svg": disc}).missing == (() if seen else ("picture: disc.svg",))


def test_demonstrations_score_high_and_a_deck_of_one_slide_does_not(browser):
    brief = make("deck", random.Random(3))
    slides = dict(enumerate(write_slides(brief, random.Random(3)), 1))
    good = browser.grade(brief, slides)
    assert good.reward > 0.95 and compliance([[s.page for s in good.slides]]) == 1, [s.details() for s in good.slides]
    same = browser.grade(brief, dict.fromkeys(slides, slides[2]))
    assert [s.duplicate for s in same.slides] == [False, True, True, True, True] and same.reward < 0.2


def test_the_family_validates(browser):
    made = family("slides", 5)
    try:
        browser.run(made.validate("test", 1))
        browser.run(made.validate("test", 2))
    finally:
        browser.run(made.close())


def test_a_killed_browser_is_an_error_and_the_next_slide_gets_a_new_one(browser):
    async def kill_and_render():
        renderer = Renderer()
        try:
            await renderer.render(slide())
            for pid in browsers(os.getpid()) - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ends = await asyncio.gather(*(renderer.render(slide()) for _ in range(3)), return_exceptions=True)
            return ends, await renderer.render(slide())
        finally:
            await renderer.close()

    before = browsers(os.getpid())
    ends, after = browser.run(kill_and_render())
    assert after.page.body.height == 720
    # Two at a time: both of the dead browser fail, the third may have had to wait for the next browser.
    assert sum(isinstance(end, VerifierError) for end in ends) >= 2, ends
    assert all(isinstance(end, VerifierError) or end.page.body.height == 720 for end in ends), ends
    assert gone(lambda: browsers(os.getpid()) - before)


def test_a_page_that_crashes_leaves_the_browser_to_the_next(browser):
    async def crash():
        renderer = Renderer()
        try:
            await renderer.render(slide())
            started = renderer._browser
            rendering = asyncio.create_task(renderer.render(slide()))
            while not rendering.done():
                for pid in pages(os.getpid()) - before:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
            with pytest.raises(VerifierError, match="could not be rendered"):
                await rendering
            assert (await renderer.render(slide())).page.body.height == 720
            return renderer._browser is started and started.is_connected()
        finally:
            await renderer.close()

    before = pages(os.getpid())
    assert browser.run(crash())


def test_a_start_that_is_cancelled_leaves_no_process(browser):
    async def cancel_and_close():
        renderer, before = Renderer(), below(os.getpid())
        rendering = asyncio.create_task(renderer.render(slide()))
        while not (started := below(os.getpid()).keys() - before.keys()):
            await asyncio.sleep(0.01)
        rendering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rendering
        await renderer.close()
        return started

    started = browser.run(cancel_and_close())
    assert gone(lambda: {pid for pid in started if alive(pid)})


ORPHAN = """
import asyncio
from arcforge.envs.slides.browser import Renderer
async def main():
    await Renderer().render("<!DOCTYPE html><p>x</p>")
    print("ready", flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""


def test_no_browser_outlives_a_killed_parent(browser):
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "ready\n"
    started = browsers(parent.pid)
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    assert started and gone(lambda: {pid for pid in started if alive(pid)})
