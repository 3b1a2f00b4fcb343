"""Which rules read which page. RULES_VERSION changes when a page would be read otherwise: stored pages are then read again."""

from __future__ import annotations

import re

from arcforge.envs.search.extract.debian_rules import debian_facts, is_debian
from arcforge.envs.search.extract.facts import Extraction, Name, paragraph
from arcforge.envs.search.extract.manual_rules import manual_facts
from arcforge.envs.search.extract.people import people
from arcforge.envs.search.extract.sphinx_rules import is_sphinx, sphinx_facts
from arcforge.envs.search.pages.page import Page

RULES_VERSION = 2
LONGEST_VALUE = 60
MOST_LINKS = 60
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_PEOPLE_FIELDS = frozenset(
    "author authors maintainer maintainers editor shepherd bdfl-delegate sponsor delegate".split()
)


def extract(page: Page) -> Extraction:
    """All that the rules find on a page. The subject is the manual entry, or the page itself by its id."""
    if page.form == "man":
        found = Extraction(Name("manual page", page.title))
        manual_facts(page, found)
        return found
    found = Extraction(Name("page", page.page_id))
    if is_debian(page):
        debian_facts(page, found)
        return found
    if is_sphinx(page):
        sphinx_facts(page, found)
    _field_facts(page, found)
    _link_facts(page, found)
    return found


def _field_facts(page: Page, found: Extraction) -> None:
    """Header blocks and tables of two columns: people as such, short values as they are."""
    for field in page.fields:
        span, key = (field.start, field.end), " ".join(field.key.casefold().split())
        if key in _PEOPLE_FIELDS:
            for name, _, _ in people(page.text, field.start, field.end):
                found.add(found.subject, "written_by", Name("person", name), span)
        elif len(field.value) <= LONGEST_VALUE:
            found.add(found.subject, f"field {key}", Name("value", field.value), span)


def _link_facts(page: Page, found: Extraction) -> None:
    """Links to other pages of the folder. A page of more than MOST_LINKS targets is an index and says little by them."""
    targets: dict[str, tuple[int, int]] = {}
    for link in page.links:
        target = link.target.partition("#")[0]
        if target and not _ADDRESS.match(target) and "/" in target + page.page_id and target != page.page_id:
            targets.setdefault(target, paragraph(page.text, link.start))
    if len(targets) <= MOST_LINKS:
        for target, span in targets.items():
            found.add(found.subject, "links_to", Name("page", target), span)
