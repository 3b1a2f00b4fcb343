"""The tools of a search agent: search, open, find. GLM-5 report, section 4.2.4.

They only read. Every one answers in text; what the model asks wrongly is answered, not raised.
"""

from __future__ import annotations

from typing import Any

from arcforge.core.messages import ToolCall, ToolSpec
from arcforge.envs.search.graph.store import GraphStore
from arcforge.envs.search.index import PageIndex

RESULTS = 5
PART_CHARS = 4000
MOST_PLACES = 8
AROUND_CHARS = 160
NO_PAGE, NO_RESULT, NOT_FOUND, NO_TOOL = "no such page", "no results", "not found", "no such tool"


def _spec(name: str, description: str, required: tuple[str, ...], **properties: str) -> ToolSpec:
    parameters = {
        "type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}, "required": list(required),
    }  # fmt: skip
    return ToolSpec(name=name, description=description, parameters=parameters)


TOOLS: tuple[ToolSpec, ...] = (
    _spec("search", "find pages by words; gives ids, titles and excerpts", ("query",), query="string"),
    _spec("open", "read a page, part by part", ("page",), page="string", part="integer"),
    _spec("find", "places of a text in a page", ("page", "text"), page="string", text="string"),
)
_TYPES = {"string": str, "integer": int}


class SearchTools:
    """One set of pages, for any number of episodes."""

    def __init__(self, store: GraphStore, index: PageIndex) -> None:
        self._store, self._index = store, index

    def call(self, call: ToolCall) -> str:
        spec = next((spec for spec in TOOLS if spec.name == call.name), None)
        if spec is None:
            return NO_TOOL
        if problem := _problem(spec, call.arguments):
            return f"bad arguments: {problem}"
        return {"search": self.search, "open": self.open, "find": self.find}[call.name](**call.arguments)

    def search(self, query: str) -> str:
        hits = self._index.search(query, RESULTS)
        lines = [f"{rank}. {hit.page}\n   {hit.title}\n   {hit.snippet}" for rank, hit in enumerate(hits, 1)]
        return "\n".join(lines) or NO_RESULT

    def open(self, page: str, part: int = 1) -> str:
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
            return "bad arguments: text is empty"
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


def _problem(spec: ToolSpec, arguments: dict[str, Any]) -> str:
    properties = spec.parameters["properties"]
    for name in spec.parameters["required"]:
        if name not in arguments:
            return f"{name} is missing"
    for name, value in arguments.items():
        if name not in properties:
            return f"there is no {name}"
        if not isinstance(value, _TYPES[properties[name]["type"]]) or isinstance(value, bool):
            return f"{name} is no {properties[name]['type']}"
    return ""
