"""The final answer of a reply: what its last \\boxed{...} holds."""

from __future__ import annotations

LONGEST = 1000
NO_BOX = "the reply has no boxed answer"
_OPENINGS = ("\\boxed{", "\\fbox{", "\\boxed {")


def last_boxed(text: str) -> str | None:
    """The content of the last box; None without a box, when it is not closed, empty, or longer than LONGEST characters."""
    start, opening = max((text.rfind(opening), opening) for opening in _OPENINGS)
    if start < 0:
        return None
    begin, depth = start + len(opening), 1
    for place in range(begin, min(len(text), begin + LONGEST + 1)):
        escaped = text[place - 1] == "\\" and text[place - 2] != "\\"
        depth += 0 if escaped else {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place].strip() or None
    return None
