"""Levels 2 and 3 of the slides environment on made-up renderings and pictures: no browser."""

import numpy as np
import pytest

from arcforge.core.errors import UserError
from arcforge.envs.slides import layout_checks, pixel_checks
from arcforge.envs.slides.check import check
from arcforge.envs.slides.content import says
from arcforge.envs.slides.rendering import CANVAS, HEIGHT, WIDTH, Page, Placed, Rect, Rendering, Text, Unfolded
from arcforge.envs.slides.score import PageScore, compliance, quality

pytest.importorskip("PIL")
BACK, FRONT = (244, 246, 248), (30, 40, 60)


def canvas(*marks, back=BACK, front=FRONT):
    """A page with stripes of 4 px in these rectangles (x, y, width, height)."""
    pixels = np.full((HEIGHT, WIDTH, 3), back, np.uint8)
    for x, y, width, height in marks:
        pixels[y : y + height, x : x + width : 8] = front
        pixels[y : y + height, x + 1 : x + width : 8] = front
    return pixels


def text(rect=(64, 100, 400, 30), block=1, **changes):
    given = {
        "text": "Some text of a slide",
        "element": f"p{block}",
        "tag": "p",
        "block": block,
        "rects": (Rect(*rect),),
        "size": 24,
        "weight": 400,
        "opacity": 1,
        "visible": 1,
        "clipped": 0,
        "card": None,
    }
    return Text(**(given | changes))


def rendering(*texts, content=(), natural=((0, 0, 10, HEIGHT),), body=CANVAS):
    page = Page(texts=texts, boxes=(), images=(), body=body)
    placed = tuple(Placed(element=f"e{i}", rect=Rect(*rect)) for i, rect in enumerate(content))
    unfolded = Unfolded(content=placed, body=body, natural=tuple(Rect(*rect) for rect in natural))
    return Rendering(page=page, unfolded=unfolded, screenshot=b"")


FULL = canvas((64, 60, 1152, 600))


def test_a_full_page_is_well_used():
    for rule in (pixel_checks.whitespace, pixel_checks.empty_region, pixel_checks.balance):
        assert rule(canvas((64, 60, 540, 520), (680, 60, 500, 200), (680, 400, 500, 200)), False).score > 0.9, rule


@pytest.mark.parametrize("back", [(255, 255, 255), (0, 0, 0), (200, 30, 30)])
def test_a_flat_page_of_any_colour_is_empty(back):
    flat = canvas(back=back)
    assert pixel_checks.whitespace(flat, False).score == 0 == pixel_checks.balance(flat, False).score
    assert pixel_checks.empty_region(flat, False).score == 0
    assert pixel_checks.largest_empty(pixel_checks.ink(flat)) == (0, 0, WIDTH // 16, HEIGHT // 16)


def test_a_smooth_gradient_is_no_ink():
    ramp = np.repeat(np.linspace(0, 255, WIDTH)[None, :, None], HEIGHT, 0).repeat(3, 2).astype(np.uint8)
    assert pixel_checks.ink(ramp).mean() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_empty_rectangle_is_the_largest(seed):
    cells = np.random.default_rng(seed).random((7, 9)) < 0.3
    every = [
        (y2 - y1) * (x2 - x1)
        for y1 in range(7)
        for y2 in range(y1 + 1, 8)
        for x1 in range(9)
        for x2 in range(x1 + 1, 10)
        if not cells[y1:y2, x1:x2].any()
    ]
    x, y, width, height = pixel_checks.largest_empty(cells)
    assert width * height == max(every) and not cells[y : y + height, x : x + width].any()


def test_half_a_page_is_abnormal_whitespace_and_a_title_may_be_sparse():
    half = canvas((64, 60, 1152, 260))
    assert pixel_checks.empty_region(half, False).score < 0.2 and pixel_checks.balance(half, False).score < 0.5
    title = canvas((64, 240, 600, 200))
    assert pixel_checks.empty_region(title, True).score > 0.8 > pixel_checks.empty_region(title, False).score


def test_crammed_pages_and_many_or_glaring_colours_lose():
    assert pixel_checks.whitespace(canvas((0, 0, WIDTH, HEIGHT)), False).score == 0
    noise = (
        np.random.default_rng(0).integers(0, 256, (HEIGHT // 60, WIDTH // 40, 3), np.uint8).repeat(60, 0).repeat(40, 1)
    )
    assert pixel_checks.palette(noise).score < 0.5 and pixel_checks.palette(canvas(back=(255, 0, 0))).score == 0
    assert pixel_checks.palette(FULL).score == 1


def test_contrast_is_measured_where_text_is_drawn():
    box = (64, 100, 400, 30)
    assert pixel_checks.drawn_contrast(canvas(box), text(box)) == pytest.approx(13.3, abs=0.5)
    assert pixel_checks.drawn_contrast(canvas(), text(box)) == 1
    assert pixel_checks.drawn_contrast(canvas(box), text((2000, 100, 9, 9))) == 1
    pale = canvas(box, front=(200, 200, 200))
    assert pixel_checks.legibility(pale, (text(box),)).elements == ("p1",)
    assert pixel_checks.legibility(canvas(box), (text(box),)).score == 1


def test_near_duplicates_have_near_fingerprints():
    first = pixel_checks.fingerprint(FULL)
    shifted = pixel_checks.fingerprint(canvas((64, 62, 1152, 600)))
    other = pixel_checks.fingerprint(canvas((64, 60, 300, 600), (700, 300, 300, 300)))
    assert pixel_checks.difference(first, shifted) <= pixel_checks.ALIKE < pixel_checks.difference(first, other)


def test_sizes_are_the_real_ones():
    assert layout_checks.real_size(rendering()) == (1280, 720)
    assert layout_checks.real_size(rendering(content=[(64, 60, 900, 955)])) == (1280, 1015)
    assert layout_checks.real_size(rendering(natural=[(64, 48, 900, 445)])) == (1280, 493)
    assert layout_checks.real_size(rendering(natural=[(64, 48, 900, 457)])) == (1280, 720)
    sparse = rendering(natural=[(64, 48, 900, 300)])
    assert layout_checks.real_size(sparse) == (1280, 348)
    assert layout_checks.page_size(sparse, False).score == 0 and layout_checks.page_size(sparse, True).score == 1
    assert layout_checks.page_size(rendering(body=Rect(0, 0, 960, 720)), False).score < 0.5


LAYOUT = {
    "overflow": (layout_checks.overflow, {"content": [(1200, 10, 100, 20)]}, {"content": [(100, 10, 100, 20)]}),
    "clipped text": (layout_checks.clipped_text, [text(clipped=0.3)], [text(clipped=0)]),
    "hidden text": (layout_checks.hidden_text, [text(visible=0.3)], [text()]),
    "no opacity": (layout_checks.hidden_text, [text(opacity=0.1)], [text()]),
    "no rectangle": (layout_checks.hidden_text, [text(rects=())], [text()]),
    "text size": (layout_checks.text_size, [text(size=9), text(size=40)], [text(size=16), text(size=40)]),
    "overlap": (layout_checks.overlap, [text(), text((70, 105, 300, 30), 2)], [text(), text((64, 130, 300, 30), 2)]),
    "containment": (layout_checks.containment, [text(card=Rect(64, 90, 200, 60))], [text(card=Rect(50, 90, 500, 60))]),
    "margins": (layout_checks.margins, [text((4, 100, 90, 30))], [text()]),
    "alignment": (
        layout_checks.alignment,
        [text((60 + 20 * i, 100 + 60 * i, 90, 30), i) for i in range(6)],
        [text((60 + 400 * (i % 2), 100 + 60 * i, 90, 30), i) for i in range(6)],
    ),
}


@pytest.mark.parametrize("name", LAYOUT)
def test_layout_rules_tell_bad_from_good(name):
    rule, bad, good = LAYOUT[name]
    made = [rendering(**given) if isinstance(given, dict) else rendering(*given) for given in (bad, good)]
    assert rule(made[0]).score < 1 == rule(made[1]).score


def test_facts_are_found_as_words():
    assert says("it grew by 12% in 2024", "12%") and says("a 1,240 b", "1,240") and says("over (46%)", "46%")
    assert not says("it grew by 112%", "12%") and not says("1,2405", "1,240") and not says("12%", "12")
    assert not says("4.12", "12") and says("it was 12.", "12")


def page(**scores):
    made = [check(level, name, scores.get(name.replace(" ", "_"), 1.0)) for level, name in NAMES]
    return PageScore(quality=quality(made), checks=tuple(made))


NAMES = ((1, "parsable"), (1, "spacing"), (2, "page size"), (2, "overflow"), (2, "clipped text"), (3, "balance"))


def test_levels_are_weighed_and_gates_cut():
    assert page().quality == 1 and page(spacing=0).quality == pytest.approx(0.85)
    assert page(page_size=0).quality == pytest.approx((0.6 + 0.4 * 0.5) * 0.5, abs=0.05)
    with pytest.raises(UserError, match="level 3 has a weight but no check"):
        quality([check(1, "parsable", 1), check(2, "overflow", 1)])


def test_compliance_counts_strictly_16_to_9_slides():
    assert compliance([[page(), page(overflow=0.9)], [page(page_size=0.99), page(spacing=0)]]) == 0.5
    with pytest.raises(UserError):
        compliance([])
