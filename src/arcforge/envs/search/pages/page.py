"""A cleaned page, and the builder that every reader writes its pieces to. Offsets count characters of the page's text."""

from __future__ import annotations

import re
from typing import Literal

from arcforge.core.messages import Value

Form = Literal["html", "rst", "md", "txt", "man"]

_SPACE = re.compile(r"\s+")
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9 /_-]{1,30}?):\s+(\S.*)", re.DOTALL)


class Section(Value):
    """A heading and all that follows it up to the next heading of its level or a higher one."""

    title: str
    level: int
    start: int
    end: int


class Link(Value):
    """target: "path of a page#fragment", an address, or a name as the text gives it ("PEP 8", "open(2)")."""

    text: str
    target: str
    start: int
    end: int


class Field(Value):
    """One line of a list of fields (an infobox, a header block)."""

    key: str
    value: str
    start: int
    end: int


class Term(Value):
    """Something the page defines: its kind as the markup calls it ("py function"), and the span of its definition.

    An `end` of -1 given to the builder means the end of the page.
    """

    kind: str
    name: str
    signature: str
    start: int
    end: int


class Page(Value):
    """page_id: path of the file in its folder. names: what the page itself says it documents (a manual page's NAME)."""

    page_id: str
    form: Form
    title: str
    text: str
    names: tuple[str, ...] = ()
    summary: str = ""
    sections: tuple[Section, ...] = ()
    links: tuple[Link, ...] = ()
    fields: tuple[Field, ...] = ()
    terms: tuple[Term, ...] = ()


class Builder:
    """Takes a page's blocks in order. Inline pieces go to `inline` and `link`; `end_block` makes a paragraph of them."""

    def __init__(self, page_id: str, form: Form) -> None:
        self.page_id = page_id
        self.form: Form = form
        self.title, self.summary = "", ""
        self.names: tuple[str, ...] = ()
        self.fields: list[Field] = []
        self.terms: list[Term] = []
        self._blocks: list[str] = []
        self.length = 0
        self._headings: list[tuple[str, int, int]] = []
        self._links: list[Link] = []
        self.buffer = ""
        self._pending: list[tuple[int, int, str]] = []

    def inline(self, text: str) -> None:
        """White space is collapsed across pieces."""
        piece = _SPACE.sub(" ", text)
        self.buffer += piece.lstrip() if not self.buffer or self.buffer.endswith(" ") else piece

    def link(self, start: int, target: str) -> None:
        """The buffer from `start` to its end is a link."""
        if self.buffer[start:].strip():
            self._pending.append((start, len(self.buffer), target))

    def end_block(self) -> tuple[int, int]:
        """Close the paragraph; its span (empty when there was no text)."""
        text, pending = self.buffer.rstrip(), self._pending
        self.buffer, self._pending = "", []
        span = self.block(text)
        for start, end, target in pending:
            end = min(end, len(text))
            if text[start:end]:
                place = span[0] + start
                self._links.append(Link(text=text[start:end], target=target, start=place, end=span[0] + end))
        return span

    def block(self, text: str) -> tuple[int, int]:
        """Append a block as it is; its span."""
        if not text.strip():
            return self.length, self.length
        start = self.length
        self._blocks.append(text)
        self.length += len(text) + 2
        return start, start + len(text)

    def heading(self, level: int, text: str) -> None:
        if not text:
            return
        start, _ = self.block(text)
        self._headings.append((text, level, start))

    @property
    def last_heading(self) -> str:
        return self._headings[-1][0] if self._headings else ""

    def field(self, key: str, value: str, span: tuple[int, int]) -> None:
        key, value = key.strip().rstrip(":").strip(), value.strip()
        if key and value:
            self.fields.append(Field(key=key, value=value, start=span[0], end=span[1]))

    def build(self) -> Page:
        text = "\n\n".join(self._blocks)
        sections = [
            Section(title=title, level=level, start=start, end=self._section_end(index, level, len(text)))
            for index, (title, level, start) in enumerate(self._headings)
        ]
        first = self._headings[0][0] if self._headings else text[:80].partition("\n")[0]
        return Page(
            page_id=self.page_id,
            form=self.form,
            title=self.title or first,
            text=text,
            names=self.names,
            summary=self.summary,
            sections=tuple(sections),
            links=tuple(self._links),
            fields=tuple(self.fields),
            terms=tuple(term if term.end >= 0 else term.model_copy(update={"end": len(text)}) for term in self.terms),
        )

    def _section_end(self, index: int, level: int, length: int) -> int:
        following = self._headings[index + 1 :]
        return next((start for _, other, start in following if other <= level), length)


def split_field(line: str) -> tuple[str, str] | None:
    """(key, value) of "Key: value"; None for any other line."""
    match = _FIELD.fullmatch(line.strip())
    return (match[1], match[2].strip()) if match else None
