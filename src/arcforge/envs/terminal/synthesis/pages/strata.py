"""Topic and difficulty of a page, and a sample in which every stratum has the same share as far as it has pages.

GLM-5 report, section 4.2.2: pages are sampled stratified by topic and difficulty.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from arcforge.core.messages import Value
from arcforge.envs.search.pages.page import Page
from arcforge.envs.terminal.synthesis.pages.suitability import Suitability

OTHER = "other"
LEAST_TOPIC = 8.0
"""Words of a topic in 1,000 that make a page one of it."""
HEAD_WEIGHT = 5
"""A word of the title or the summary counts as so many of the text."""
# Words, options or uses, and tools: easy has at most the first of each, hard has more than the second of two of them.
WORDS, USES, TOOLS = (600, 2500), (10, 60), (1, 4)
TOPICS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "archives": "archive archives tar zip gzip bzip2 xz zstd cpio compress compressed compression decompress extract",
        "text": "line lines pattern patterns regular expression expressions match matches text character characters column columns "
        "sort encoding unicode locale whitespace",
        "data": "json csv xml yaml table tables record records database sql query schema xpath stylesheet column row rows",
        "version control": "git commit commits branch branches repository merge patch patches diff revision index upstream rebase",
        "programming": "python perl javascript class classes module modules object objects method methods iterator exception "
        "argument arguments callback interpreter",
        "c": "pointer struct errno int void glibc posix const thread threads null char stdio",
        "building": "compiler compile linker link object section symbol symbols build make makefile cmake target targets package "
        "packages library libraries assembler llvm",
        "files": "file files directory directories permission permissions owner links path paths inode mode timestamp filename",
        "security": "key keys certificate certificates encrypt decrypt encryption signature sign digest hash password cipher rsa",
        "processes": "process processes signal signals job jobs schedule memory limit limits pid child timer priority profile",
        "documents": "pdf postscript page pages font fonts image images troff groff latex tex format document documents media",
    }.items()
}
_WORD = re.compile(r"[a-z][a-z0-9]*")


class Placed(Value):
    """A page that suits, by its stratum. difficulty: 1 to 3. path: of its file."""

    page_id: str
    title: str
    topic: str
    difficulty: int
    tools: tuple[str, ...]
    path: str = ""


def topic(page: Page) -> str:
    """The topic with the most of its words among the page's, OTHER when there are few of any."""
    words = Counter(_WORD.findall(page.text.lower()))
    total = max(1, sum(words.values()))
    for word in _WORD.findall(f"{page.title} {page.summary}".lower()):
        words[word] += HEAD_WEIGHT
    shares = {name: 1000 * sum(words[word] for word in terms) / total for name, terms in TOPICS.items()}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= LEAST_TOPIC else OTHER


def difficulty(page: Page, suits: Suitability) -> int:
    """1 to 3, by how much there is to know."""
    held = (len(page.text.split()), max(suits.options, suits.uses), len(suits.tools))
    limits = (WORDS, USES, TOOLS)
    if sum(value > hard for value, (_, hard) in zip(held, limits)) >= 2:
        return 3
    return 1 if sum(value <= easy for value, (easy, _) in zip(held, limits)) >= 2 else 2


def sample(pages: Sequence[Placed], count: int, seed: int = 0) -> list[Placed]:
    """`count` pages: strata take turns, each in an order drawn from the seed, until they are used up."""
    strata: dict[tuple[str, int], list[Placed]] = defaultdict(list)
    for page in sorted(pages, key=lambda page: page.page_id):
        strata[page.topic, page.difficulty].append(page)
    for stratum, held in strata.items():
        random.Random(f"{seed}/{stratum}").shuffle(held)
    order = sorted(strata)
    random.Random(seed).shuffle(order)
    chosen: list[Placed] = []
    while len(chosen) < count and any(strata.values()):
        for stratum in order:
            if strata[stratum] and len(chosen) < count:
                chosen.append(strata[stratum].pop())
    return chosen
