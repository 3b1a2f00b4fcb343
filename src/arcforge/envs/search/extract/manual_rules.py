"""Relations of a manual page, by the conventions of man-pages(7): header line, sections and references."""

from __future__ import annotations

import re
from collections.abc import Callable

from arcforge.envs.search.extract.facts import Alias, Extraction, Name, paragraphs
from arcforge.envs.search.extract.normalise import iso_date, project_name
from arcforge.envs.search.extract.people import people
from arcforge.envs.search.pages.page import Page, Section

_HEADER = re.compile(r"#\s*include\s+<([\w./+-]+\.h)>")
_ERROR = re.compile(r"(E[A-Z][A-Z0-9]{2,})(?=\s|$|,)")
_VARIABLE = re.compile(r"\$?([A-Z][A-Z0-9_]{3,})(?=\s|$|=)")
_FILE = re.compile(r"((?:/|~/|\$HOME/)[\w.~/+-]*\w)(?=\s|$)")
_LIBRARY = re.compile(r"([A-Z][\w .+/-]+?)\s*\(")
_ADDED = re.compile(
    r"(?:added|appeared|introduced|available|first|since|supported)\b[^.;]{0,40}?\b(Linux|glibc)(?: kernel)?(?: version)? "
    r"(\d+\.\d+(?:\.\d+)*)"
)


def manual_facts(page: Page, found: Extraction) -> None:
    """Add what the page says of itself to `found`, whose subject is the page's manual entry."""
    for name in page.names:
        section = page.title.rpartition("(")[2]
        other = Name("manual page", f"{name}({section}")
        if " " not in name and other != found.subject:
            found.aliases.append(Alias(found.subject, other, "names"))
    _header_facts(page, found)
    for section in page.sections:
        if section.level == 1 and (rule := _RULES.get(section.title)):
            rule(page, section, found)


def _header_facts(page: Page, found: Extraction) -> None:
    for field in page.fields:
        span = (field.start, field.end)
        if field.key == "source" and len(project_name(field.value)) > 2:
            found.add(found.subject, "part_of", Name("project", project_name(field.value)), span)
        elif field.key == "date" and (date := iso_date(field.value)):
            found.add(found.subject, "dated", Name("date", date), span)


def _see_also(page: Page, section: Section, found: Extraction) -> None:
    for link in page.links:
        if section.start <= link.start < section.end:
            target = re.sub(r"\s", "", link.target)
            found.add(found.subject, "see_also", Name("manual page", target), (link.start, link.end))


def _pattern_rule(
    relation: str, kind: str, pattern: re.Pattern[str], whole: bool = False
) -> Callable[[Page, Section, Extraction], None]:
    """Paragraphs that begin with the pattern; with `whole`, every place of it. Its first group is the object's name."""

    def rule(page: Page, section: Section, found: Extraction) -> None:
        for start, end in paragraphs(page, section.start + len(section.title) + 2, section.end):
            matches = (
                pattern.finditer(page.text, start, end)
                if whole
                else filter(None, [pattern.match(page.text, start, end)])
            )
            for match in matches:
                found.add(found.subject, relation, Name(kind, match[1]), (start, end))

    return rule


def _added(page: Page, section: Section, found: Extraction) -> None:
    """Only what the section says in its first place: later ones tell of flags and arguments."""
    if match := _ADDED.search(page.text, section.start, section.end):
        start = page.text.rfind("\n\n", 0, match.start()) + 2
        found.add(found.subject, "added_in", Name("version", f"{match[1]} {match[2]}"), (start, match.end()))


def _authors(page: Page, section: Section, found: Extraction) -> None:
    for name, start, end in people(page.text, section.start + len(section.title), section.end):
        found.add(found.subject, "written_by", Name("person", name), (start, end))


_LIBRARIES = _pattern_rule("in_library", "library", _LIBRARY)
_RULES: dict[str, Callable[[Page, Section, Extraction], None]] = {
    "SEE ALSO": _see_also,
    "LIBRARY": _LIBRARIES,
    "SYNOPSIS": _pattern_rule("declared_in", "header", _HEADER, whole=True),
    "ERRORS": _pattern_rule("fails_with", "error", _ERROR),
    "ENVIRONMENT": _pattern_rule("reads_variable", "variable", _VARIABLE),
    "ENVIRONMENT VARIABLES": _pattern_rule("reads_variable", "variable", _VARIABLE),
    "FILES": _pattern_rule("names_file", "file", _FILE),
    "VERSIONS": _added,
    "HISTORY": _added,
    "AUTHOR": _authors,
    "AUTHORS": _authors,
}
