"""Relations of what a page of Sphinx defines (modules, functions, classes, C names), and of the page that tells what is new."""

from __future__ import annotations

import re

from arcforge.envs.search.extract.facts import Extraction, Name, paragraph, paragraphs
from arcforge.envs.search.extract.people import PERSON, is_person
from arcforge.envs.search.pages.page import Link, Page, Term

_NOTES = (
    ("added_in", re.compile(r"New in version (\d+(?:\.\d+)+)\.(?=\n|$)")),
    ("changed_in", re.compile(r"Changed in version (\d+(?:\.\d+)+)")),
    ("deprecated_in", re.compile(r"Deprecated since version (\d+(?:\.\d+)+)")),
)
STANDARD = re.compile(r"(?:PEP|RFC) \d+")
_CREDIT = re.compile(
    rf"(?:Contributed|Implemented|Written|Patch|Suggested)[\w\s]{{0,20}} by ({PERSON}(?:(?:, and |, | and ){PERSON})*)"
)
_RAISED = re.compile(r"(?:Error|Exception|Warning|Interrupt|StopIteration)$")
_SOURCE = "Source code"


def sphinx_facts(page: Page, found: Extraction) -> None:
    """Add the facts of every term that the page defines, and the credits that its paragraphs give."""
    modules = [term for term in page.terms if term.kind == "py module" and _is_module(page, term)]
    terms = [
        (t, name) for t in page.terms if (name := _name(t)) is not None and (t in modules or t.kind != "py module")
    ]
    for term, name in terms:
        _term_facts(page, term, name, modules, found)
    _link_facts(page, terms, found)
    _credits(page, found)


def is_sphinx(page: Page) -> bool:
    return any(term.kind.startswith(("py ", "c ", "std envvar")) for term in page.terms) or "/whatsnew/" in page.page_id


def _is_module(page: Page, term: Term) -> bool:
    """A section's id may begin like a module's."""
    return page.title.startswith(term.name) or any(other.name.startswith(f"{term.name}.") for other in page.terms)


def _name(term: Term) -> Name | None:
    if not re.fullmatch(r"[\w.-]+", term.name):
        return None  # some data is documented under an expression
    if term.kind == "py module":
        return Name("Python module", term.name)
    if term.kind.startswith("py "):
        return Name("Python name", term.name)
    if term.kind.startswith("c "):
        return Name("C name", term.name.removeprefix("c."))
    if term.kind == "std envvar":
        return Name("variable", term.name.removeprefix("envvar-"))
    return None


def _term_facts(page: Page, term: Term, name: Name, modules: list[Term], found: Extraction) -> None:
    if term.kind == "py module":
        span = paragraph(page.text, term.start)
        for field in page.fields:
            if field.key == _SOURCE and len(modules) == 1:
                found.add(
                    name, "source_file", Name("file", field.value.split(",")[0].strip()), (field.start, field.end)
                )
        found.add(found.subject, "documents", name, span)
        return
    signature = (term.start, term.start + len(term.signature))
    found.add(name, "is_a", Name("type", _spoken(term.kind)), signature)
    inside = [module for module in modules if name.text.startswith(f"{module.name}.")]
    if inside and name.kind == "Python name":
        found.add(name, "defined_in", Name("Python module", max(inside, key=lambda m: len(m.name)).name), signature)


def _spoken(kind: str) -> str:
    language, _, what = kind.partition(" ")
    return f"{ {'py': 'Python', 'c': 'C', 'std': 'Python'}[language] } {what.replace('envvar', 'environment variable')}"


def _innermost(terms: list[tuple[Term, Name]], at: int) -> Name | None:
    """The smallest definition, no module, around an offset."""
    around = [
        (term.end - term.start, name)
        for term, name in terms
        if term.start <= at < term.end and term.kind != "py module"
    ]
    return min(around, key=lambda pair: pair[0])[1] if around else None


def _link_facts(page: Page, terms: list[tuple[Term, Name]], found: Extraction) -> None:
    for link in page.links:
        name = _innermost(terms, link.start)
        if name is None:
            continue
        span = paragraph(page.text, link.start)
        if STANDARD.fullmatch(link.text):
            found.add(name, "specified_by", Name("PEP", link.text), span)
        elif (target := target_of(link)) is not None:
            raised = (
                target.kind == "Python name" and _RAISED.search(target.text) and "raise" in page.text[span[0] : span[1]]
            )
            found.add(name, "raises" if raised else "refers_to", target, span)
    for relation, pattern in _NOTES:
        for match in pattern.finditer(page.text):
            if (name := _innermost(terms, match.start())) is not None:
                language = "Python" if name.kind != "variable" or name.text.startswith("PYTHON") else ""
                found.add(
                    name,
                    relation,
                    Name("version", f"{language} {match[1]}".strip()),
                    paragraph(page.text, match.start()),
                )


def target_of(link: Link) -> Name | None:
    """The documented name that a link leads to; None for a link to a page or a section."""
    fragment = link.target.partition("#")[2]
    shown = link.text.strip().removesuffix("()").lstrip("@")
    if fragment.startswith("module-"):
        return Name("Python module", fragment.removeprefix("module-"))
    if fragment.startswith("c."):
        return Name("C name", fragment.removeprefix("c."))
    if fragment.startswith("envvar-"):
        return Name("variable", fragment.removeprefix("envvar-"))
    if fragment and shown and (fragment == shown or fragment.endswith(f".{shown}")):
        return Name("Python name", fragment)
    return None


def _credits(page: Page, found: Extraction) -> None:
    """A paragraph "... (Contributed by NAME ...)" credits the person with the first documented name that it links to."""
    for start, end in paragraphs(page, 0, len(page.text)):
        match = _CREDIT.search(page.text, start, end)
        if match is None:
            continue
        linked = next(
            (t for link in page.links if start <= link.start < match.start() and (t := target_of(link))), None
        )
        if linked is None:
            continue
        for person in re.split(r",? and |, ", match[1]):
            if is_person(person):
                found.add(linked, "contributed_by", Name("person", person), (start, match.end()))
