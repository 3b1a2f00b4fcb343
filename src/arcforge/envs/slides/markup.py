"""A slide's markup as a tree of elements with the styles that its style sheets and attributes give them.

This is the cascade (origin, importance, specificity, order) and inheritance of the few properties that the checks of
level 1 read. What needs a layout (percentages, `auto`, media queries) is left to the browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

import cssselect2
import tinycss2
from tinyhtml5.parser import HTMLParser

INHERITED = ("color", "fill", "font-size", "font-family", "font-weight", "visibility", "text-indent")
HEADING_SIZES = {"h1": 2.0, "h2": 1.5, "h3": 1.17, "h4": 1.0, "h5": 0.83, "h6": 0.67, "small": 0.83}
ROOT_SIZE = 16.0
POINTS = {"px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 9.6 / 2.54, "vw": 12.8, "vh": 7.2}
NO_TEXT = frozenset({"script", "style", "head", "title", "noscript", "template", "desc"})
MOST_DEPTH = 150
MOST_CHARACTERS = 200_000
MOST_ELEMENTS = 1500  # measure.js looks at as many
MOST_VALUE = 1000  # characters of a value with custom properties put in
LARGEST_FONT = 1e4
VARIABLE = re.compile(r"var\(\s*(--[\w-]+)\s*(?:,([^()]*))?\)")
SURROGATE = re.compile("[\ud800-\udfff]")
LENGTH = re.compile(r"(-?(?:\d+(?:\.\d+)?|\.\d+))([a-z]+|%)?$")


class Unreadable(Exception):
    """The markup, or what its style sheets say, is too large or too deep to be a slide."""


@dataclass
class Node:
    """One element. text: its own text, without its children's. style: property -> value, inherited ones included."""

    tag: str
    attributes: dict[str, str]
    parent: Node | None
    text: str = ""
    style: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    @property
    def label(self) -> str:
        """`section>h1.title`: how the checks name the element."""
        return f"{self.parent._own}>{self._own}" if self.parent and self.tag != "body" else self._own

    @property
    def _own(self) -> str:
        classes = self.attributes.get("class", "").split()
        identity = self.attributes.get("id")
        return self.tag + (f"#{identity}" if identity else f".{classes[0]}" if classes else "")

    @property
    def size(self) -> float:
        """Font size in px."""
        return float(self.style["font-size"].removesuffix("px"))

    def walk(self) -> Iterator[Node]:
        """The element and all below it, in document order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def above(self) -> Iterator[Node]:
        """The element and its ancestors, nearest first."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


@dataclass(frozen=True)
class Markup:
    """A parsed slide. errors: the HTML parser's error codes. css_errors: the same of the style sheets."""

    root: Node
    errors: tuple[str, ...]
    css_errors: tuple[str, ...]

    @property
    def body(self) -> Node:
        return next((node for node in self.root.children if node.tag == "body"), self.root)

    def texts(self) -> list[Node]:
        """Elements of the body with text of their own."""
        return [n for n in self.body.walk() if n.text.strip() and not any(a.tag in NO_TEXT for a in n.above())]


def parse(source: str) -> Markup:
    """Parse as a browser does: anything gives a tree; what had to be repaired is in `errors`. Raises Unreadable.

    Hostile markup may need any time and memory (`reading.py` bounds both): selectors of many parts are tried on every path
    of ancestors, variables are handed down to every element, and formatting elements are opened again in every paragraph.
    """
    if len(source) > MOST_CHARACTERS:
        raise Unreadable(f"{len(source)} characters, at most {MOST_CHARACTERS}")
    if SURROGATE.search(source):  # JSON can say half a character, which no file and no browser can be given
        raise Unreadable("half of a surrogate pair, which is no character")
    parser = HTMLParser(namespace_html_elements=False)
    tree: Any = parser.parse(source)
    if _deeper_than(tree, MOST_DEPTH):
        raise Unreadable(f"elements nested more than {MOST_DEPTH} deep")
    if sum(1 for _ in tree.iter()) > MOST_ELEMENTS:
        raise Unreadable(f"more than {MOST_ELEMENTS} elements")
    try:
        rules, css_errors = _rules(tree)
        root = _build(cssselect2.ElementWrapper.from_html_root(tree), None, rules)
    except (RecursionError, SyntaxError) as error:  # brackets, and selectors that are compiled to Python expressions
        raise Unreadable("style sheets nested too deep") from error
    except ValueError as error:  # Python reads integers of at most 4300 digits
        raise Unreadable("style sheets with a number that is too long") from error
    return Markup(root, tuple(code for _, code, _ in parser.errors), tuple(css_errors))


def pixels(value: str, font_size: float = ROOT_SIZE) -> float | None:
    """A CSS length in px; None for percentages, keywords and functions."""
    found = LENGTH.fullmatch(value.strip())
    if found is None:
        return None
    number, unit = float(found[1]), found[2]
    if unit is None:
        return 0.0 if number == 0 else None
    if unit in ("em", "rem"):
        return number * (font_size if unit == "em" else ROOT_SIZE)
    return number * POINTS[unit] if unit in POINTS else None


def lengths(value: str, font_size: float = ROOT_SIZE) -> list[float]:
    """The lengths in a value such as `4px auto 1em`, in px."""
    return [found for part in value.split() if (found := pixels(part, font_size)) is not None]


def _deeper_than(tree: Element, most: int) -> bool:
    level = [tree]
    for _ in range(most):
        level = [child for element in level for child in element]
    return bool(level)


def _rules(tree: Element) -> tuple[cssselect2.Matcher, list[str]]:
    matcher, errors = cssselect2.Matcher(), []
    for element in tree.iter("style"):
        for rule in tinycss2.parse_stylesheet(element.text or "", skip_comments=True, skip_whitespace=True):
            if rule.type == "error":
                errors.append(rule.message)
            elif rule.type == "qualified-rule":
                declarations, wrong = _declarations(rule.content)
                errors += wrong
                try:
                    for selector in cssselect2.compile_selector_list(rule.prelude):
                        matcher.add_selector(selector, declarations)
                except cssselect2.SelectorError as error:
                    errors.append(str(error))
    return matcher, errors


def _declarations(content: Any) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """([(property, value, important)], errors)."""
    parsed = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    kept = [(d.lower_name, tinycss2.serialize(d.value).strip(), d.important) for d in parsed if d.type == "declaration"]
    return kept, [d.message for d in parsed if d.type == "error"]


def _build(wrapper: cssselect2.ElementWrapper, parent: Node | None, rules: cssselect2.Matcher) -> Node:
    element = wrapper.etree_element
    tag = str(element.tag).rsplit("}", 1)[-1]
    node = Node(tag, dict(element.attrib), parent)
    matched = [declarations for *_, pseudo, declarations in rules.match(wrapper) if pseudo is None]
    matched.append(_declarations(element.attrib.get("style", ""))[0])
    node.style = _cascade(node, matched)
    parts = [element.text or ""]
    for child in wrapper.iter_children():
        node.children.append(_build(child, node, rules))
        parts.append(child.etree_element.tail or "")
    node.text = " ".join(part.strip() for part in parts if part.strip())
    return node


def _cascade(node: Node, matched: list[list[tuple[str, str, bool]]]) -> dict[str, str]:
    above = node.parent.style if node.parent else {"font-size": f"{ROOT_SIZE}px", "color": "black"}
    base = pixels(above["font-size"]) or ROOT_SIZE
    style = {name: above[name] for name in INHERITED if name in above}
    if node.tag in HEADING_SIZES:
        style["font-size"] = f"{base * HEADING_SIZES[node.tag]}px"
    if node.tag in ("h1", "h2", "h3", "h4", "h5", "h6", "b", "strong", "th"):
        style["font-weight"] = "bold"
    ordered = [*_presentation(node), *(d for declarations in matched for d in declarations)]
    for important in (False, True):
        for name, value, strong in ordered:
            if strong == important:
                style.update(_longhands(name, value))
    variables = {name: value for name, value in (above | style).items() if name.startswith("--")}
    style = {name: _substitute(value, variables) for name, value in (variables | style).items()}
    for name in INHERITED:
        if style.get(name) in ("inherit", "unset"):
            style[name] = above.get(name, "")
    style["font-size"] = f"{_font_size(style['font-size'], base)}px"
    return style


def _presentation(node: Node) -> list[tuple[str, str, bool]]:
    """What SVG attributes say, weaker than any style sheet."""
    names = [name for name in ("fill", "font-size", "font-weight", "opacity") if name in node.attributes]
    units = {name: "px" if name == "font-size" and node.attributes[name].isdigit() else "" for name in names}
    return [(name, node.attributes[name] + units[name], False) for name in names]


def _substitute(value: str, variables: dict[str, str]) -> str:
    """`value` with its custom properties put in; three rounds are enough for variables made of variables.

    Variables of variables multiply at every level of the tree, so what is put in is cut to MOST_VALUE characters.
    """
    for _ in range(3):
        if "var(" not in value or len(value) > MOST_VALUE:
            break
        value = VARIABLE.sub(lambda found: variables.get(found[1], (found[2] or "").strip())[:MOST_VALUE], value)
        value = value[:MOST_VALUE].strip()
    return value


def _longhands(name: str, value: str) -> dict[str, str]:
    """The shorthands that hold what the checks read, taken apart; everything else as it is."""
    if name == "background":
        return {
            "background": value,
            "background-color": value if "(" not in value or value.startswith(("rgb", "hsl")) else "",
        }
    if name == "font" and len(value) <= MOST_VALUE:
        found = re.match(r"(?P<before>.*?)(?P<size>[\d.]+(?:px|pt|em|rem|%|vw|vh))(?:/\S+)?\s+(?P<family>.+)$", value)
        if found is None:
            return {}
        weight = re.search(r"\b(bold|\d00)\b", found["before"])
        return {
            "font-size": found["size"],
            "font-family": found["family"],
            "font-weight": weight[1] if weight else "400",
        }
    return {name: value}


def _font_size(value: str, base: float) -> float:
    """In px, at most LARGEST_FONT."""
    keywords = {"xx-small": 9, "x-small": 10, "small": 13, "medium": 16, "large": 18, "x-large": 24, "xx-large": 32}
    if value in keywords:
        return float(keywords[value])
    if value in ("smaller", "larger"):
        return base / 1.2 if value == "smaller" else base * 1.2
    if value.endswith("%") and (found := LENGTH.fullmatch(value)):
        return min(base * float(found[1]) / 100, LARGEST_FONT)
    # An unreadable size (calc, clamp, a variable) is left to level 2.
    return min(found, LARGEST_FONT) if (found := pixels(value, base)) is not None else base
