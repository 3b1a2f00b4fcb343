"""HTML to a page, with the standard library's parser: navigation is skipped, tables of two columns become fields, and
definition lists become terms."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

from arcforge.envs.search.pages.page import Builder, Page, Term

SKIPPED_TAGS = frozenset("script style nav footer noscript form button head svg".split())
SKIPPED_CLASSES = frozenset(
    """sphinxsidebar related navheader navfooter toc contents headerlink permalink indexterm footer sidebar navigation
    breadcrumb breadcrumbs toctree-wrapper topic-contents toplang bottomlang""".split()
)
SKIPPED_IDS = frozenset("quickview page-header path preamble-nav".split())
BLOCKS = frozenset(
    "p div section article main li ul ol blockquote table tbody thead figure figcaption hr aside header body dd".split()
)
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_HEADING = re.compile(r"h[1-6]")
_MAIN = re.compile(r"""<main\b|role=["']?main""", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


@dataclass
class _List:
    """An open definition list: its class, the terms whose definitions are still open, whether one has begun."""

    kind: str
    open: list[tuple[str, str, str, int]] = field(default_factory=list)
    defining: bool = False


@dataclass
class _Row:
    """An open table row: its cells, and whether the first one is a header to the second one."""

    cells: int = 0
    header: bool = False
    key: str = ""


def read_html(page_id: str, text: str) -> Page:
    """ValueError for a marked section or a declaration that the parser does not take."""
    reader = _Reader(page_id, _MAIN.search(text) is not None)
    try:
        reader.feed(text)
        reader.close()
    except AssertionError as error:  # how html.parser tells of `<![foo[ x ]]>`
        raise ValueError(f"not HTML: {error}") from None
    title = _TITLE.search(text)
    return reader.finish(title[1] if title else "")


class _Reader(HTMLParser):
    def __init__(self, page_id: str, has_main: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._page = Builder(page_id, "html")
        self._skipping: tuple[str, int] | None = None
        self._waits_for_main, self._main, self._main_tag = has_main, 0, ""
        self._lists: list[_List] = []
        self._term: tuple[str, str] | None = None
        self._row: _Row | None = None
        self._anchor: tuple[int, str] | None = None
        self._strong: int | None = None
        self._key = ""
        self._pre: list[str] | None = None
        self._heading = ""

    def finish(self, title: str) -> Page:
        self._block()
        while self._lists:
            self._close_terms(self._lists.pop())
        self._page.title = self._page.title or " ".join(unescape(title).split())
        return self._page.build()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if self._skipping is not None:
            if tag == self._skipping[0] and tag not in VOID:
                self._skipping = (tag, self._skipping[1] + 1)
            return
        if self._waits_for_main:
            self._look_for_main(tag, given)
            return
        if self._main and tag == self._main_tag:
            self._main += 1
        if self._is_skipped(tag, given):
            self._skipping = None if tag in VOID else (tag, 1)
            return
        self._module(given)
        self._start(tag, given)

    def _look_for_main(self, tag: str, given: dict[str, str]) -> None:
        if tag == "main" or given.get("role") == "main":
            self._waits_for_main, self._main, self._main_tag = False, 1, tag

    def _is_skipped(self, tag: str, given: dict[str, str]) -> bool:
        classes = set(given.get("class", "").split())
        return tag in SKIPPED_TAGS or bool(classes & SKIPPED_CLASSES) or given.get("id") in SKIPPED_IDS

    def _module(self, given: dict[str, str]) -> None:
        """Sphinx marks the section that documents a module by its id."""
        name = given.get("id", "").removeprefix("module-")
        if name != given.get("id", "") and name:
            self._block()
            self._page.terms.append(Term(kind="py module", name=name, signature="", start=self._page.length, end=-1))

    def _start(self, tag: str, given: dict[str, str]) -> None:
        if _HEADING.fullmatch(tag):
            self._block()
            self._heading = tag
        elif tag == "dl":
            self._block()
            self._lists.append(_List(given.get("class", "")))
        elif tag == "dt":
            self._start_term(given)
        elif tag == "pre":
            self._block()
            self._pre = []
        elif tag == "tr":
            self._block()
            self._row = _Row()
        elif tag in ("td", "th") and self._row is not None:
            self._cell(tag)
        elif tag == "a":
            self._anchor = (len(self._page.buffer), given["href"]) if given.get("href") else None
        elif tag in ("strong", "b"):
            self._strong = len(self._page.buffer)
        elif tag == "br" or tag in BLOCKS:
            self._block()
        if tag == "dd" and self._lists:
            self._lists[-1].defining = True

    def handle_endtag(self, tag: str) -> None:
        if self._skipping is not None:
            if tag == self._skipping[0]:
                depth = self._skipping[1] - 1
                self._skipping = (tag, depth) if depth else None
            return
        if self._waits_for_main:
            return
        if self._main and tag == self._main_tag:
            self._main -= 1
            if not self._main:
                self._block()
                self._waits_for_main = True
                return
        self._end(tag)

    def _end(self, tag: str) -> None:
        if tag == self._heading:
            self._end_heading(tag)
        elif tag == "dl" and self._lists:
            self._block()
            self._close_terms(self._lists.pop())
        elif tag == "dt":
            self._end_term()
        elif tag == "pre" and self._pre is not None:
            text, self._pre = "".join(self._pre), None
            self._page.block(text.strip("\n"))
        elif tag == "tr":
            self._end_row()
        elif tag == "a" and self._anchor is not None:
            start, address = self._anchor
            self._page.link(start, resolve(self._page.page_id, address))
            self._anchor = None
        elif tag in ("strong", "b") and self._strong is not None:
            self._end_strong()
        elif tag in BLOCKS:
            self._block()

    def handle_data(self, data: str) -> None:
        if self._skipping is not None or self._waits_for_main:
            return
        if self._pre is not None:
            self._pre.append(data)
        else:
            self._page.inline(data)

    def _block(self) -> None:
        """End a paragraph. Inside a table row, a heading or a term a block is only a space."""
        if (self._row is not None and self._row.cells) or self._heading or self._term is not None:
            self._page.inline(" ")
            return
        key, self._key = self._key, ""
        text = self._page.buffer
        span = self._page.end_block()
        if key and text.startswith(key):
            self._page.field(key, text[len(key) :], span)

    def _end_heading(self, tag: str) -> None:
        self._heading = ""
        text, self._page.buffer = self._page.buffer.strip().rstrip("#\u00b6").rstrip(), ""
        self._page.end_block()
        if tag == "h1" and not self._page.title:
            self._page.title = text
        self._page.heading(int(tag[1]), text)

    def _end_strong(self) -> None:
        if self._strong == 0 and self._page.buffer.rstrip().endswith(":") and len(self._page.buffer) < 30:
            self._key = self._page.buffer.rstrip()
        self._strong = None

    def _cell(self, tag: str) -> None:
        row, page = self._row, self._page
        assert row is not None
        if row.cells:
            page.buffer = page.buffer.rstrip().rstrip(":") + (": " if row.header and row.cells == 1 else " | ")
        row.cells += 1
        if row.cells == 1:
            row.header = tag == "th"
        elif row.cells == 2:
            row.key, row.header = page.buffer, row.header and tag == "td"

    def _end_row(self) -> None:
        row, self._row = self._row, None
        text = self._page.buffer
        span = self._page.end_block()
        if row is not None and row.cells == 2 and row.header:
            self._page.field(row.key, text[len(row.key) :], span)

    def _start_term(self, given: dict[str, str]) -> None:
        self._block()
        if self._lists and self._lists[-1].defining:
            self._close_terms(self._lists[-1])
        self._term = (given.get("id", ""), given.get("class", ""))

    def _end_term(self) -> None:
        if self._term is None:
            return
        identity, classes = self._term
        self._term = None
        text = self._page.buffer.strip()
        start, _ = self._page.end_block()
        if self._lists and text:
            kind = self._lists[-1].kind if "sig-object" in classes else "term"
            name = identity if kind != "term" and identity else text
            self._lists[-1].open.append((kind, name, text, start))

    def _close_terms(self, opened: _List) -> None:
        end = max(self._page.length - 2, 0)
        for kind, name, signature, start in opened.open:
            self._page.terms.append(
                Term(kind=kind, name=name, signature=signature, start=start, end=max(end, start + len(signature)))
            )
        opened.open, opened.defining = [], False


def resolve(page_id: str, address: str) -> str:
    """A link's address as "page#fragment", relative to the folder; addresses on the web stay as they are."""
    if re.match(r"[a-z][a-z0-9+.-]*:", address, re.IGNORECASE) or address.startswith("//"):
        return address
    path, _, fragment = unquote(address).partition("#")
    path = path.partition("?")[0]
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(page_id), path)) if path else page_id
    return f"{whole}#{fragment}" if fragment else whole
