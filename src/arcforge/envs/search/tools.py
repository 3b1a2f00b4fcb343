"""The tools of a search agent: search, open, find. GLM-5 report, section 4.2.4.

They only read. What the model asks wrongly is answered, not raised.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from arcforge.agents.toolset import Arguments, Tool
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.index import PageIndex

RESULTS = 5
PART_CHARS = 4000
MOST_PLACES = 8
AROUND_CHARS = 160
NO_PAGE, NO_RESULT, NO_TEXT, NOT_FOUND = "no such page", "no results", "the text to find is empty", "not found"


class SearchArguments(Arguments):
    query: str = Field(description="Words that the pages have.")


class OpenArguments(Arguments):
    page: str = Field(description="The page's id.")
    part: int = Field(1, description="Which part, from 1.")


class FindArguments(Arguments):
    page: str = Field(description="The page's id.")
    text: str = Field(description="What to look for, in any case.")


class SearchTools:
    """One set of pages, for any number of episodes: each makes a Toolset of `tools`."""

    def __init__(self, store: GraphStore, index: PageIndex) -> None:
        self._store, self._index = store, index
        self.tools: tuple[Tool[Any], ...] = (
            Tool("search", "Find pages by words; gives ids, titles and excerpts.", SearchArguments, self._search),
            Tool("open", "Read a page, part by part.", OpenArguments, self._open),
            Tool("find", "Places of a text in a page.", FindArguments, self._find),
        )

    async def _search(self, arguments: SearchArguments) -> str:
        return self.search(arguments.query)

    async def _open(self, arguments: OpenArguments) -> str:
        return self.open(arguments.page, arguments.part)

    async def _find(self, arguments: FindArguments) -> str:
        return self.find(arguments.page, arguments.text)

    def search(self, query: str) -> str:
        hits = self._index.search(query, RESULTS)
        lines = [f"{rank}. {hit.page}\n   {hit.title}\n   {hit.snippet}" for rank, hit in enumerate(hits, 1)]
        return "\n".join(lines) or NO_RESULT

    def open(self, page: str, part: int) -> str:
        """A part has at most PART_CHARS characters and ends with a line where one ends in its second half."""
        text = self._store.text(page)
        if not text:
            return NO_PAGE
        parts = split_parts(text)
        if not 1 <= part <= len(parts):
            return f"the page has parts 1 to {len(parts)}"
        return f"{page} (part {part} of {len(parts)})\n{parts[part - 1]}"

    def find(self, page: str, text: str) -> str:
        """Case does not matter. Each place with its surroundings and the part of the page that it is in."""
        whole = self._store.text(page)
        if not whole:
            return NO_PAGE
        if not text.strip():
            return NO_TEXT
        places = _places(whole, text)
        ends = _ends(split_parts(whole))
        lines = []
        for at in places[:MOST_PLACES]:
            around = whole[max(0, at - AROUND_CHARS) : at + len(text) + AROUND_CHARS]
            part = next(number for number, end in enumerate(ends, 1) if at < end)
            lines.append(f"part {part}: ...{' '.join(around.split())}...")
        if len(places) > MOST_PLACES:
            lines.append(f"and {len(places) - MOST_PLACES} more places")
        return "\n".join(lines) or NOT_FOUND


def split_parts(text: str) -> list[str]:
    """The text cut in parts; joined they are the text again."""
    parts, at = [], 0
    while at < len(text):
        end = min(len(text), at + PART_CHARS)
        if end < len(text):
            line = text.rfind("\n", at + PART_CHARS // 2, end)
            end = line + 1 if line >= 0 else end
        parts.append(text[at:end])
        at = end
    return parts


def _ends(parts: list[str]) -> list[int]:
    ends, at = [], 0
    for part in parts:
        at += len(part)
        ends.append(at)
    return ends


def _places(whole: str, text: str) -> list[int]:
    folded, wanted, found, at = whole.lower(), text.lower(), [], 0
    while (at := folded.find(wanted, at)) >= 0:
        found.append(at)
        at += max(1, len(wanted))
    return [min(place, len(whole) - 1) for place in found]
