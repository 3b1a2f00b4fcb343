"""Names of people in running text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = r"(?:[A-ZÀ-ÖØ-ÞĄ-Ž][\w'’]*(?:-[A-ZÀ-Ö]?[\w'’]+)*\w)"
PERSON = rf"{_WORD}(?:\s(?:[A-Z]\.|van|von|de|der|den|da|di|du|la|le|{_WORD})){{0,3}}\s{_WORD}"
_PERSON = re.compile(PERSON)
_NOT_PEOPLE = frozenset(
    """the this these foundation software inc corporation team group project company ltd free university gnu linux debian
    laboratories labs systems page pages manual bug bugs report reporting copyright license written author authors maintainer
    maintainers developers contributors community institute technologies international documentation library red hat
    various others many some thanks version see and for from new python google microsoft ibm oracle all rights reserved
    department consortium association networks computing regents california committee center council security updates fix
    fixed add added update updated upstream test tests file files use remove patch patches by in of on to with non build system
    """.split()
)


def people(text: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of every person's name between two offsets, by its form and a list of words that no name has."""
    for match in _PERSON.finditer(text, start, end):
        words = match[0].split()
        if not any(word.strip(".").casefold() in _NOT_PEOPLE for word in words) and not match[0].isupper():
            yield " ".join(words), match.start(), match.end()


def is_person(name: str) -> bool:
    return any(found == " ".join(name.split()) for found, _, _ in people(name, 0, len(name)))


_SHARED = re.compile(
    r"@lists\.|^(?:packages|debian|team|admin|root|bugs?|info|maintainers?)@|-(?:team|maint\w*|devel|bugs?)@|^pkg-"
)


def is_own_address(email: str) -> bool:
    """Not a mailing list's or a team's, as far as the address tells."""
    return _SHARED.search(email.casefold()) is None
