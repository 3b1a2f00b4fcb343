"""Whether a page is worth reading: features of its text, each with a threshold, and the first one that it fails.

GLM-5 report, section 4.2.2: a quality classifier stands before everything else. Ours are rules that can be read and argued with;
the thresholds were set by looking at pages on both sides of them.
"""

from __future__ import annotations

import re

from arcforge.core.messages import Value
from arcforge.envs.search.pages.page import Page

FEWEST_WORDS = 150
"""Shorter pages say too little to make a task of."""
LEAST_LETTERS = 0.55
"""Of all that is neither white space nor the lines of a table: below it, a page is a table of codes, a dump or a drawing."""
LEAST_COMMON = 0.12
"""Of the words, the share of the most common English ones: prose has a quarter to a half of them, lists of names and other
languages almost none."""
MOST_LINKED = 0.5
"""Of the characters, those in links: above it, a page leads to others and says nothing itself."""
LEAST_DISTINCT = 0.6
"""Of the blocks, those that are not there twice: below it, a page was made by a program that repeats itself."""
MOST_DATED = 0.1
"""Of the blocks, those that begin with a date: above it, a page is a record of changes."""
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_COMMON = frozenset(
    """a all an and any are as at be been but by can each for from has have if in into is it its may must no not of on one only
    or other same set should so than that the their then there these this to use used using when where which will with you""".split()
)
_DATED = re.compile(
    r"\W*(?:\d{4}-\d\d-\d\d|\d\d? [A-Z][a-z]{2} \d{4}|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[,a-z ]|Closes:)|.*\burgency="
)
_RULED = re.compile(r"[\s\u2500-\u257f]+")  # white space and the lines of a table


class Features(Value):
    """Of a page's text; shares are between 0 and 1."""

    words: int
    letters: float
    common: float
    linked: float
    distinct: float
    dated: float


def features(page: Page) -> Features:
    words = [word.lower() for word in _WORD.findall(page.text)]
    dense = _RULED.sub("", page.text)
    blocks = [" ".join(block.split()) for block in page.text.split("\n\n") if block.strip()]
    return Features(
        words=len(words),
        letters=_share(sum(map(str.isalpha, dense)), len(dense)),
        common=_share(sum(word in _COMMON for word in words), len(words)),
        linked=_share(sum(link.end - link.start for link in page.links), len(page.text)),
        distinct=_share(len(set(blocks)), len(blocks)),
        dated=_share(sum(_DATED.match(block) is not None for block in blocks), len(blocks)),
    )


def poor(found: Features) -> str:
    """Why a page is left out; empty for one that is not."""
    if found.words < FEWEST_WORDS:
        return f"fewer than {FEWEST_WORDS} words"
    if found.letters < LEAST_LETTERS:
        return "codes or drawings"
    if found.common < LEAST_COMMON:
        return "no English prose"
    if found.linked > MOST_LINKED:
        return "links to other pages"
    if found.distinct < LEAST_DISTINCT:
        return "repeats itself"
    return "a record of changes" if found.dated > MOST_DATED else ""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
