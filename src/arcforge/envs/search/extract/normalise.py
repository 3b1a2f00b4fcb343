"""One form for what is written in many ways: names of entities, dates, versions, licences, addresses, and relations."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CASED = frozenset(
    (
        "manual page",
        "Python name",
        "Python module",
        "C name",
        "header",
        "error",
        "variable",
        "file",
        "page",
        "CVE",
        "PEP",
    )
)
_MONTHS = "january february march april may june july august september october november december".split()
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2}))?")
_DAY_FIRST = re.compile(r"(?:(\d{1,2})\w{0,2}\s+)?([A-Za-z]{3,9})\.?,?\s+(\d{4})")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3,9})\.?\s+(\d{1,2})\w{0,2},?\s+(\d{4})")
_VERSION = re.compile(r"\s+(?:version\s+)?v?\d[\w.+~:-]*$", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


@lru_cache(maxsize=200_000)
def key_of(kind: str, text: str) -> str:
    """What two spellings of one name share."""
    text = _SPACE.sub(" ", text).strip()
    if kind in CASED:
        return text.removesuffix("()")
    if kind == "date":
        return iso_date(text) or text.casefold()
    if kind == "license":
        return license_name(text).casefold()
    if kind == "url":
        return re.sub(r"^https?://(www\.)?", "", text.casefold()).rstrip("/")
    if kind == "project":
        text = _VERSION.sub("", text)
    if kind == "person":
        text = re.sub(r"<[^>]*>", "", text).replace(".", " ")
    return " ".join(re.findall(r"[\w+.@:~-]+", folded(text)))


def folded(text: str) -> str:
    """Without case and accents, and with one space for all white space."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).split())


def iso_date(text: str) -> str:
    """ "YYYY-MM-DD" or "YYYY-MM" of a written date; empty when it is none."""
    if match := _ISO.search(text):
        year, month, day = match.groups()
        return _date(year, int(month), day)
    if (match := _MONTH_FIRST.search(text)) and (month := _month(match[1])):
        return _date(match[3], month, match[2])
    if (match := _DAY_FIRST.search(text)) and (month := _month(match[2])):
        return _date(match[3], month, match[1])
    return ""


def _date(year: str, month: int, day: str | None) -> str:
    if not 1 <= month <= 12:
        return ""
    return f"{year}-{month:02d}" + (f"-{int(day):02d}" if day else "")


def _month(word: str) -> int:
    return next((at for at, name in enumerate(_MONTHS, 1) if len(word) > 2 and name.startswith(word.casefold())), 0)


def license_name(text: str) -> str:
    """Debian's, SPDX's and spoken spellings of the common licences as one: GPL-2+, GPLv2+ and GPL-2.0-or-later."""
    text = text.strip(" .,;").replace("GPLv", "GPL-").replace("_", "-")
    text = re.sub(r"-or-later$", "+", re.sub(r"-only$", "", text, flags=re.IGNORECASE), flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d)\.0(?=\+|$)", "", text)
    return {"expat": "MIT", "mit/x11": "MIT", "apache-2": "Apache-2.0"}.get(text.casefold(), text)


def project_name(text: str) -> str:
    """Without the version at its end: "GNU coreutils 9.1" is of the project GNU coreutils."""
    return _VERSION.sub("", _SPACE.sub(" ", text).strip())


# Other words for the relations of `relations.py`; "~" turns subject and object round.
RELATION_WORDS = {
    "author": "written_by", "authors": "written_by", "created by": "written_by", "developed by": "written_by",
    "author of": "~written_by", "wrote": "~written_by", "see also": "see_also", "related to": "see_also",
    "belongs to": "part_of", "component of": "part_of", "contains": "~part_of", "includes": "~part_of",
    "new in version": "added_in", "since": "added_in", "introduced in": "added_in", "available since": "added_in",
    "deprecated since": "deprecated_in", "changed in version": "changed_in", "license": "licensed_under",
    "licence": "licensed_under", "maintainer": "maintained_by", "maintains": "~maintained_by", "defined by": "specified_by",
    "throws": "raises", "may raise": "raises", "errno": "fails_with", "environment variable": "reads_variable",
    "references": "refers_to", "mentions": "refers_to", "uses": "refers_to", "header": "declared_in", "fixes": "fixes",
}  # fmt: skip


def relation_name(words: str) -> tuple[str, bool]:
    """(the relation's one name, whether subject and object change places)."""
    plain = _SPACE.sub(" ", words.replace("_", " ")).strip().casefold()
    known = RELATION_WORDS.get(plain, plain.replace(" ", "_"))
    return known.removeprefix("~"), known.startswith("~")
