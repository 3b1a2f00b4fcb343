"""Relations of the files that every Debian package brings: copyright and changelog.Debian."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from arcforge.envs.search.extract.facts import Alias, Extraction, Name, paragraph
from arcforge.envs.search.extract.normalise import iso_date, license_name
from arcforge.envs.search.extract.people import PERSON, is_own_address, is_person
from arcforge.envs.search.pages.page import Page

_HEAD = re.compile(r"^([a-z0-9][a-z0-9+.-]+) \(([^\s)]+)\) [^\n;]+;", re.MULTILINE)
_TRAILER = re.compile(r"^ ?-- ([^<\n]+?) <([^>\n]+)>\s+(?:\w{3},? )?([^\n]+)$", re.MULTILINE)
CVE = re.compile(r"CVE-\d{4}-\d{4,}")
BUG = re.compile(r"#\d{5,7}\b")
_CLOSES = re.compile(r"closes?:?\s*(?:bug)?((?:\s*,?\s*(?:bug)?#\d{5,7})+)", re.IGNORECASE)
_THANKS = re.compile(rf"[Tt]hank(?:s|s go|\s?you),?(?: to)? ({PERSON})")
_LICENSE = re.compile(r"\bLicense: ([A-Za-z][\w.+-]*\d?[\w.+-]*)")
_HOLDER = re.compile(rf"(?:Copyright:?|\(C\)|\(c\)|©)\s*(?:©\s*)?(?:\d{{4}}[\d\s,–-]*),?\s+({PERSON})")
_PACKAGED = re.compile(rf"(?:debianized|packaged|put together|created) by ({PERSON})")
_CONTACT = re.compile(rf"Upstream (?:Authors?|Contact|Maintainers?)(?:\(s\))?:\s*({PERSON})")


def is_debian(page: Page) -> bool:
    return PurePosixPath(page.page_id).name in ("copyright", "changelog.Debian") and "/" in page.page_id


def debian_facts(page: Page, found: Extraction) -> None:
    """Add the facts of the package that the page's folder is named after."""
    path = PurePosixPath(page.page_id)
    package = Name("package", path.parent.name)
    if path.name == "copyright":
        _copyright_facts(page, package, found)
    else:
        _changelog_facts(page, package, found)


def _copyright_facts(page: Page, package: Name, found: Extraction) -> None:
    for field in page.fields:
        span = (field.start, field.end)
        if field.key == "Upstream-Name":
            found.add(package, "upstream", Name("project", field.value), span)
        elif field.key == "Source" and (match := re.search(r"https?://\S+", field.value)):
            found.add(package, "homepage", Name("url", match[0].rstrip(".,>)")), span)
    for match in _LICENSE.finditer(page.text):
        found.add(package, "licensed_under", Name("license", license_name(match[1])), match.span())
    for relation, pattern in (("held_by", _HOLDER), ("packaged_by", _PACKAGED), ("contact", _CONTACT)):
        for match in pattern.finditer(page.text):
            if is_person(match[1]):
                found.add(package, relation, Name("person", match[1]), match.span())


def _changelog_facts(page: Page, package: Name, found: Extraction) -> None:
    heads = list(_HEAD.finditer(page.text))
    if heads:
        found.add(package, "built_from", Name("source package", heads[0][1]), heads[0].span())
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(page.text)
        release = Name("release", f"{head[1]} {head[2]}")
        found.add(release, "release_of", Name("source package", head[1]), head.span())
        _release_facts(page, release, head.end(), end, found)


def _release_facts(page: Page, release: Name, start: int, end: int, found: Extraction) -> None:
    trailer = _TRAILER.search(page.text, start, end)
    if trailer and is_person(trailer[1]):
        person = Name("person", trailer[1])
        found.add(release, "released_by", person, trailer.span())
        if date := iso_date(trailer[3]):
            found.add(release, "dated", Name("date", date), trailer.span())
        if is_own_address(trailer[2]):
            found.aliases.append(Alias(person, Name("email", trailer[2]), "email"))
    for match in CVE.finditer(page.text, start, end):
        found.add(release, "fixes", Name("CVE", match[0]), paragraph(page.text, match.start()))
    for closed in _CLOSES.finditer(page.text, start, end):
        for bug in BUG.finditer(page.text, *closed.span(1)):
            found.add(release, "closes", Name("bug", bug[0]), paragraph(page.text, bug.start()))
    for match in _THANKS.finditer(page.text, start, end):
        if is_person(match[1]):
            found.add(release, "thanks", Name("person", match[1]), paragraph(page.text, match.start()))
