"""Long answers of tools, cut to a length: the head and the tail stay, a note says what is missing."""

from __future__ import annotations

_NOTE = "\n[... {missing} of {total} characters left out ...]\n"


def capped(text: str, limit: int) -> str:
    """`text`, at most `limit` characters long, the note included: two thirds head, one third tail.

    ValueError for a limit that the note does not fit in.
    """
    if len(text) <= limit:
        return text
    room = limit - len(_NOTE.format(missing=len(text), total=len(text)))
    if room < 2:
        raise ValueError(f"a limit of {limit} characters leaves no room for text")
    tail = room // 3
    head = room - tail
    return text[:head] + _NOTE.format(missing=len(text) - room, total=len(text)) + text[len(text) - tail :]
