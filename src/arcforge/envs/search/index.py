"""BM25 over the pages of a graph, by the library bm25s."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from arcforge.envs.search.graph.store import GraphStore

_WORD = re.compile(r"\w\w+")
SNIPPET_CHARS = 240


@dataclass(frozen=True)
class Hit:
    page: str
    title: str
    snippet: str


class PageIndex:
    """All pages that are in the store when it is made, in memory. The texts themselves stay in the store."""

    def __init__(self, store: GraphStore) -> None:
        import bm25s  # seconds to import, as numpy is; the family is imported by everything that lists families

        self._store = store
        self.pages: list[str] = []
        self._titles: list[str] = []
        self._vocabulary: dict[str, int] = {}
        ids = [self._add(page, title, text) for page, title, text in store.pages()]
        self._bm25 = bm25s.BM25()
        self._bm25.index((ids, self._vocabulary), show_progress=False)

    def _add(self, page: str, title: str, text: str) -> array[int]:
        self.pages.append(page)
        self._titles.append(title)
        known = self._vocabulary
        # What a page is called says more than one word of its text; a Debian file names its package only by its folder.
        words = words_of(f"{page} {title} {page} {title} {text}")
        return array("i", (known.setdefault(word, len(known)) for word in words))

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best pages for the words of the query, best first; pages with none of them are no hits."""
        words = sorted(set(words_of(query)) & self._vocabulary.keys(), key=lambda word: (self._pages_of(word), word))
        return [self._hit(at, words) for at in self._best(query, limit)]

    def best_pages(self, query: str, limit: int) -> list[str]:
        """Ids of what `search` gives."""
        return [self.pages[at] for at in self._best(query, limit)]

    def _best(self, query: str, limit: int) -> list[int]:
        words = [word for word in words_of(query) if word in self._vocabulary]
        if not words:
            return []
        scores = self._bm25.get_scores(words)
        best = (-scores).argsort(kind="stable")[:limit]
        return [int(at) for at in best if scores[at] > 0]

    def _pages_of(self, word: str) -> int:
        """How many pages have the word."""
        at, starts = self._vocabulary[word], self._bm25.scores["indptr"]
        return int(starts[at + 1] - starts[at])

    def pages_with(self, words: Sequence[str]) -> set[str]:
        """Pages that have every one of the words."""
        found: set[int] | None = None
        for word in set(words):
            at = self._vocabulary.get(word)
            if at is None:
                return set()
            stored = self._bm25.scores
            here = set(stored["indices"][stored["indptr"][at] : stored["indptr"][at + 1]].tolist())
            found = here if found is None else found & here
        return {self.pages[at] for at in found or ()}

    def _hit(self, at: int, words: Sequence[str]) -> Hit:
        return Hit(self.pages[at], self._titles[at], snippet(self._store.text(self.pages[at]), words))


def words_of(text: str) -> list[str]:
    """Runs of at least two letters, digits and underscores, case folded."""
    return _WORD.findall(text.casefold())


def snippet(text: str, words: Sequence[str]) -> str:
    """Where the first of the words (the rarest one) that is in the text stands; the beginning when none is."""
    folded = text.lower()
    at = next((place for word in words if (place := folded.find(word)) >= 0), 0)
    start = text.rfind("\n\n", 0, at) + 2 if "\n\n" in text[:at] else 0
    line = " ".join(text[max(start, at - SNIPPET_CHARS // 2) :][:SNIPPET_CHARS].split())
    return f"{line}..." if len(text) > SNIPPET_CHARS else line
