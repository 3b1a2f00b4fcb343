"""Level 1 of the slides environment: the cascade, and one slide per rule that breaks it."""

import pytest
from slide_pages import LINES, slide

from arcforge.envs.slides import colours, markup_checks
from arcforge.envs.slides.markup import MOST_DEPTH, Unreadable, parse
from arcforge.envs.slides.markup_checks import markup_level
from arcforge.envs.slides.score import MARKUP_GATES

PICTURE = "data:image/svg+xml;base64,PHN2Zy8+"
FILES = {"a.svg": b"<svg/>", "b.svg": b"<svg width='1'/>", "copy.svg": b"<svg/>"}


def node(html, tag):
    return next(n for n in parse(html).body.walk() if n.tag == tag)


def score(name, **given):
    return next(c for c in markup_level(parse(slide(**given)), FILES) if c.name == name)


@pytest.mark.parametrize(
    ("html", "size"),
    [
        ("<p style='font-size: 2em'>x", 32),
        ("<style>p { font-size: 10px } p.a { font-size: 20px }</style><p class=a>x", 20),
        ("<style>p { font-size: 10px !important }</style><p style='font-size: 20px'>x", 10),
        ("<style>#i { font-size: 11px } .a { font-size: 12px }</style><p class=a id=i>x", 11),
        ("<style>div { font-size: 50% }</style><div><p>x</div>", 8),
        ("<style>:root { --big: 30px } p { font-size: var(--big) }</style><p>x", 30),
        ("<style>p { font-size: var(--none, 9px) }</style><p>x", 9),
        ("<style>p { font: bold 18px/1.2 Arial }</style><p>x", 18),
        ("<p style='font-size: 12pt'>x", 16),
        ("<p style='font-size: calc(1px + 2vw)'>x", 16),
        ("<style>@media print { p { font-size: 1px } } p { color: }</style><p>x", 16),
    ],
)
def test_font_sizes_follow_the_cascade(html, size):
    assert node(html, "p").size == pytest.approx(size)


def test_colours_and_contrast_are_those_of_wcag():
    grey, white = colours.parse("#777777"), colours.parse("white")
    assert colours.contrast(grey, white) == pytest.approx(4.478, abs=0.001)
    assert colours.contrast(colours.BLACK, white) == pytest.approx(21)
    assert colours.parse("hsl(0 100% 50%)")[:3] == (1, 0, 0) and colours.parse("nonsense") is None
    assert colours.parse("rgba(0, 0, 0, 0.5)").over(colours.WHITE)[0] == pytest.approx(0.5)


def test_contrast_is_that_of_the_colours_behind():
    layered = "<div style='background: #000'><p style='background: rgba(255,255,255,.5); color: #fff'>x"
    assert markup_checks.text_contrast(node(layered, "p")) == pytest.approx(3.95, abs=0.05)
    assert markup_checks.text_contrast(node("<div style='background: linear-gradient(red, blue)'><p>x", "p")) is None
    assert markup_checks.text_contrast(node("<svg><text fill='white'>x", "text")) == pytest.approx(1)


def test_an_honest_slide_passes_every_rule():
    assert [c for c in markup_level(parse(slide()), {}) if c.score < 1] == []


BROKEN = {
    "parsable": [{"body": "<div><span></div>"}, {"css": "p { color: red; } } .x {"}, {"body": "<script></script>"}],
    "position": [
        {"body": '<p style="position: absolute; left: 1270px; width: 200px">far right</p>'},
        {"body": '<p style="position: absolute; top: -40px">above</p>'},
        {"css": "body { width: 1600px }"},
    ],
    "spacing": [{"css": ".row { padding: 160px }"}, {"css": ".row { margin-top: -30px }"}],
    "contrast": [{"css": ".row { color: #aaaaaa }"}, {"css": "body { background: #222222 } h1 { color: #333333 }"}],
    "typography": [
        {"css": ".row { font-size: 11px }"},
        {"css": "h1 { font-size: 18px }"},
        {"heading": "One</h1><h1>Two"},
        {"body": "".join(f'<p style="font-size: {20 + i}px">size</p>' for i in range(9))},
        {"body": "".join(f'<p style="font-family: {name}">x</p>' for name in ("Courier", "Georgia", "Papyrus"))},
    ],
    "saturation": [
        {"css": "body { background-color: #ff0000 }"},
        {"body": "".join(f'<p style="color: hsl({hue} 100% 50%)">vivid</p>' for hue in (0, 60, 120, 180))},
    ],
    "missing images": [
        {"body": '<img src="team-photo.jpg">'},
        {"body": '<img src="https://example.com/a.svg">'},
        {"body": "<img>"},
        {"body": '<div style="background-image: url(gone.png)"></div>'},
        {"body": '<img src="data:image/png;base64,***">'},
        {"body": '<svg><image xlink:href="gone.png"/></svg>'},
    ],
    "duplicate images": [
        {"body": '<img src="a.svg"><img src="a.svg">'},
        {"body": '<img src="a.svg"><img src="copy.svg">'},
        {"body": f'<img src="{PICTURE}"><div style="background: url({PICTURE})"></div>'},
    ],
    "repetition": [{"body": f"<p>{LINES[0]}</p><p> {LINES[0].upper()}  </p>"}],
    "concealment": [
        {"css": f".row {{ {rule} }}"}
        for rule in (
            "display: none",
            "opacity: 0.1",
            "visibility: hidden",
            "font-size: 1px",
            "text-indent: -9999px",
            "transform: scale(0.5)",
            "zoom: 50%",
            "clip-path: inset(50%)",
            "-webkit-line-clamp: 2",
            "color: transparent",
        )
    ],
}


@pytest.mark.parametrize(("name", "given"), [(name, given) for name, slides in BROKEN.items() for given in slides])
def test_a_broken_rule_is_found(name, given):
    found = score(name, **given)
    assert found.score < 1 and (found.elements or found.note), found


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("missing images", {"body": f'<img src="a.svg"><img src="{PICTURE}">'}),
        ("duplicate images", {"body": '<img src="a.svg"><img src="b.svg">'}),
        ("parsable", {"body": '<svg viewBox="0 0 9 9"><rect width="9" height="9"/></svg><br/>'}),
        ("position", {"body": '<div style="position: absolute; left: -80px; top: -80px; width: 200px"></div>'}),
        ("concealment", {"css": "body { overflow: hidden } .row { transform: rotate(1deg) scale(1.1); opacity: 0.9 }"}),
        ("contrast", {"css": "h1 { color: #8a8a8a; background-color: #ffffff }"}),
    ],
)
def test_what_is_allowed_passes(name, given):
    assert score(name, **given).score == 1


def test_every_gate_of_the_level_is_a_check():
    assert {c.name for c in markup_level(parse(slide()), {})} >= MARKUP_GATES


@pytest.mark.parametrize("html", ["<div>" * (MOST_DEPTH + 5), "x" * 300_000])
def test_what_is_no_slide_is_refused_quickly(html):
    with pytest.raises(Unreadable):
        parse(html)


MANY = "9" * 400
TOO_DEEP = {
    "brackets": "p { color: " + "(" * 3000,
    "calc": "p { width: " + "calc(" * 3000 + "1px" + ")" * 3000 + " }",
    "not": ":not(" * 500 + "p" + ")" * 500 + " { color: red }",
    "children": "* > " * 250 + "p { color: red }",
    "digits": "p { left: " + "9" * 5000 + "px }",
}


@pytest.mark.parametrize("name", TOO_DEEP)
def test_style_sheets_that_cannot_be_read_are_no_slide(name):
    with pytest.raises(Unreadable, match="style sheets"):
        parse(slide(css=TOO_DEEP[name]))


def test_a_style_attribute_that_cannot_be_read_is_no_slide():
    with pytest.raises(Unreadable, match="style sheets"):
        parse(f'<p style="color: {"(" * 3000}">x')


@pytest.mark.parametrize(
    "css",
    [
        f"p {{ font-size: {MANY}px }}",
        f"p {{ font-size: {MANY}% }}",
        f"p {{ font-size: {MANY}em; padding: {MANY}em; zoom: {MANY}% }}",
        ":root { --a: var(--a) var(--a) } div { --a: var(--a) var(--a) }",
        ":root { --a: " + "x" * 60_000 + " } div { color: " + "var(--a) " * 3000 + " }",
        "p { zoom: var(--none) var(--none) }",
        "p { left: " + "9" * 4000 + "!; font: " + "9" * 4000 + " }",
    ],
)
def test_style_sheets_without_measure_are_scored(css):
    """Infinite sizes, and variables that multiply at each level of the tree: quickly, and within some memory."""
    tree = parse(slide(css=css, body="<div>" * 100 + "<p>x"))
    assert all(0 <= c.score <= 1 for c in markup_level(tree, {}))
    assert all(len(value) <= 100_000 for n in tree.root.walk() for value in n.style.values())


@pytest.mark.parametrize(
    "html", ["", "\0", "<", "<style>", "<style>}{@;!</style>", "<p style='{{{'>x", "]]>", "<svg><style>"]
)
def test_anything_else_is_parsed(html):
    assert all(0 <= c.score <= 1 for c in markup_level(parse(html), {}))
