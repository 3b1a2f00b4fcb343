"""The relations that are known, and how each is said: one sentence pattern serves a clue, a step forward and a step back."""

from __future__ import annotations

# {x}: the subject, {y}: the object.
SENTENCES: dict[str, str] = {
    "see_also": "{x} lists {y} among what to see also",
    "part_of": "{x} belongs to {y}",
    "in_library": "{x} documents something in {y}",
    "declared_in": "the synopsis of {x} includes {y}",
    "fails_with": "{x} lists {y} among its errors",
    "reads_variable": "{x} lists {y} in its section on the environment",
    "names_file": "{x} names {y} in its section on files",
    "written_by": "{x} was written by {y}",
    "dated": "{x} is dated {y}",
    "added_in": "{x} was added in {y}",
    "changed_in": "{x} changed in {y}",
    "deprecated_in": "{x} is deprecated since {y}",
    "is_a": "{x} is a {y}",
    "defined_in": "{x} is defined in {y}",
    "raises": "the documentation of {x} says when {y} is raised",
    "refers_to": "the documentation of {x} refers to {y}",
    "specified_by": "the documentation of {x} refers to {y}",
    "contributed_by": "{y} is credited with contributing a change to {x}",
    "source_file": "the source code of {x} is in {y}",
    "links_to": "{x} links to {y}",
    "released_by": "{x} was released by {y}",
    "release_of": "{x} is a release of {y}",
    "fixes": "{x} fixed {y}",
    "closes": "{x} closed {y}",
    "thanks": "the notes of {x} thank {y}",
    "licensed_under": "part of {x} is licensed under {y}",
    "held_by": "{y} holds copyright in part of {x}",
    "contact": "the upstream contact of {x} is {y}",
    "homepage": "the source of {x} is at {y}",
    "packaged_by": "{x} was first packaged by {y}",
    "documents": "{x} documents {y}",
    "upstream": "{x} packages {y}",
    "built_from": "{x} is built from {y}",
}  # fmt: skip

# Kinds of entities: how a question calls one, and how the name in an answer is written.
KINDS: dict[str, tuple[str, str]] = {
    "manual page": ("a manual page", "as name(section)"),
    "Python name": ("a Python name", "with its module, like module.name"),
    "Python module": ("a Python module", "as it is imported"),
    "C name": ("a name of Python's C API", "as it is written in C"),
    "header": ("a header file", "without angle brackets"),
    "variable": ("an environment variable", ""),
    "file": ("a file", "with its whole path"),
    "person": ("a person", "in full"),
    "project": ("a project", "without a version"),
    "package": ("a Debian package", ""),
    "source package": ("a Debian source package", ""),
    "release": ("a release of a Debian package", "as source package and version, with a space between them"),
    "page": ("a page", "the page's title"),
    "CVE": ("a vulnerability", "as CVE number"),
    "bug": ("a bug", "as # and number"),
    "PEP": ("a PEP or RFC", "as PEP or RFC and its number"),
}
"""Kinds that a chain may pass through. Others (dates, versions, licences, values of fields) only serve as clues."""


def sentence(relation: str, x: str, y: str) -> str:
    """A statement, without a capital or a full stop. Fields and relations that a completer found are said by their name."""
    if relation in SENTENCES:
        return SENTENCES[relation].format(x=x, y=y)
    if relation.startswith("field "):
        return f'{x} gives {y} as "{relation.removeprefix("field ")}"'
    return f'{x} stands in the relation "{relation.replace("_", " ")}" to {y}'


def article(kind: str) -> str:
    """ "a header file"; a kind without an entry is called by its own name."""
    return KINDS[kind][0] if kind in KINDS else f"{'an' if kind[:1].casefold() in 'aeiou' else 'a'} {kind}"


def noun(kind: str) -> str:
    """ "header file": `article` without the article."""
    return article(kind).partition(" ")[2]
