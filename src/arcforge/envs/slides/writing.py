"""Two tools: write a slide (again), and submit. What is written is checked when the deck is graded, not before."""

from __future__ import annotations

from arcforge.core.messages import ToolCall, ToolSpec

MOST_CHARACTERS = 100_000
SYSTEM = (
    "You make slides. Write each slide with write_slide as one complete HTML document whose body is exactly 1280x720 px: "
    "HTML, CSS and inline SVG only, no scripts, nothing from the network, only the pictures that are named. "
    "Say everything that is asked for, word for word where it is a name or a number, readable and well laid out. "
    "Fill the page with content and cut nothing off. Then submit."
)
TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        name="write_slide",
        description="write slide `number` (from 1), in place of an earlier version",
        parameters={
            "type": "object",
            "properties": {"number": {"type": "integer"}, "html": {"type": "string"}},
            "required": ["number", "html"],
        },
    ),
    ToolSpec(name="submit", description="the deck is finished"),
)
OK, NO_TOOL, BAD_ARGUMENTS = "ok", "no such tool", "bad arguments"


class Deck:
    """The slides written so far, by number from 1. `done` after submit."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.slides: dict[int, str] = {}
        self.done = False

    def call(self, call: ToolCall) -> str:
        """The tool's answer; every mistake is one of the model and is answered in words."""
        match call.name, call.arguments:
            case "submit", dict() as arguments if not arguments:
                self.done = True
                return OK
            case "write_slide", {"number": int() as number, "html": str() as html, **rest} if not rest:
                return self._write(number, html)
            case "submit" | "write_slide", _:
                return BAD_ARGUMENTS
            case _:
                return NO_TOOL

    def _write(self, number: int, html: str) -> str:
        if isinstance(number, bool) or not 1 <= number <= self._count:
            return f"there are slides 1 to {self._count}"
        if len(html) > MOST_CHARACTERS:
            return f"too long: {len(html)} characters, at most {MOST_CHARACTERS}"
        self.slides[number] = html
        return OK
