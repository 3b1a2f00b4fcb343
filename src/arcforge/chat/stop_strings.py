"""Stop strings in text that comes in pieces: the text ends before the first of them, wherever the pieces are cut.

Each string is followed through the text by its own Knuth-Morris-Pratt automaton, so a character costs a step per string
whatever the strings are: they come from strangers.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Feed it text; it answers what may be shown. The string that is complete first counts, the longest of several.

    `matched` is that string, "" before. ValueError for an empty string, which every text holds.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if "" in strings:
            raise ValueError("a stop string is empty")
        self._followed = [_Followed(string) for string in strings]
        self._held = ""
        self.matched = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """(text that may be shown now, whether a stop string has come). Nothing is shown after one."""
        if self.matched:
            return "", True
        before, held = len(self._held), self._held + text
        for position, character in enumerate(text, before + 1):
            complete = [followed.string for followed in self._followed if followed.step(character)]
            if complete:
                self.matched, self._held = max(complete, key=len), ""
                return held[: position - len(self.matched)], True
        shown = len(held) - max((followed.begun for followed in self._followed), default=0)
        self._held = held[shown:]
        return held[:shown], False

    def rest(self) -> str:
        """What is still held back, once no more text comes: the beginning of a stop string that was none."""
        held, self._held = self._held, ""
        return held


class _Followed:
    """One string, and how much of its beginning stands at the end of the text so far (`begun` characters)."""

    def __init__(self, string: str) -> None:
        self.string, self.begun = string, 0
        self._shorter = [0]  # for a beginning of n + 1 characters, the next shorter one that it ends with
        for character in string[1:]:
            self._shorter.append(self._grown(self._shorter[-1], character))

    def step(self, character: str) -> bool:
        """Whether the string is complete with this character. Not to be called after it was."""
        self.begun = self._grown(self.begun, character)
        return self.begun == len(self.string)

    def _grown(self, begun: int, character: str) -> int:
        while begun and self.string[begun] != character:
            begun = self._shorter[begun - 1]
        return begun + (self.string[begun] == character)
