"""What is read off one page: names of entities, typed relations with their evidence, and names that mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from arcforge.envs.search.extract.normalise import key_of
from arcforge.envs.search.pages.page import Page


@dataclass(frozen=True, slots=True)
class Name:
    """An entity as a page names it. `node` is what two pages share when they name it alike."""

    kind: str
    text: str

    @property
    def node(self) -> str:
        return f"{self.kind}:{key_of(self.kind, self.text)}"


@dataclass(frozen=True, slots=True)
class Fact:
    """relation: a name of `relations.py` or "field KEY". start, end: the evidence, in characters of the page's text."""

    subject: Name
    relation: str
    object: Name
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Alias:
    """Two names of one entity. reason: "names" (a page documents both), "redirect", or "email" (one person's address)."""

    name: Name
    other: Name
    reason: str


@dataclass
class Extraction:
    """subject: the entity that the page is about; it owns this name, whatever other pages call by it."""

    subject: Name
    facts: list[Fact] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)

    def add(self, subject: Name, relation: str, object_: Name, span: tuple[int, int]) -> None:
        """Names without a letter or a digit, and relations of a thing to itself, are dropped."""
        if any(c.isalnum() for c in object_.text) and subject.node != object_.node:
            self.facts.append(Fact(subject, relation, object_, *span))


def paragraph(text: str, at: int) -> tuple[int, int]:
    """Span of the paragraph that holds offset `at`."""
    start = text.rfind("\n\n", 0, at)
    end = text.find("\n\n", at)
    return (0 if start < 0 else start + 2), (len(text) if end < 0 else end)


def paragraphs(page: Page, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the paragraphs between two offsets."""
    at = start
    while at < end:
        stop = page.text.find("\n\n", at, end)
        stop = end if stop < 0 else stop
        if page.text[at:stop].strip():
            yield at, stop
        at = stop + 2
