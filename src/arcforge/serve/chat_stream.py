"""Reading a turn while it is being sampled: which new text is reasoning and which is content.

Tool calls are held back until the turn has ended and come out of `chat.parse` whole: half a call is of no use.
"""

from __future__ import annotations

from collections.abc import Sequence

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.messages import Message, Thinking


class TurnReader:
    """Feed it sampled ids; it answers the text that is certain by now. Call `finish` once at the end."""

    def __init__(self, tokenizer: Tokenizer, thinking: Thinking) -> None:
        self._tokenizer = tokenizer
        self._end_think, self._tool_call = tokenizer.id("</think>"), tokenizer.id("<tool_call>")
        self._part = "reasoning" if thinking.enabled else "content"
        self._undecided: list[int] = []
        self._content = ""

    def feed(self, ids: Sequence[int]) -> dict[str, str]:
        """{"reasoning": ..., "content": ...}, only the parts that grew."""
        grown: dict[str, str] = {}
        for i in ids:
            if i == self._end_think and self._part == "reasoning":
                self._release(grown, whole=True)
                self._part = "content"
            elif i == self._tool_call:
                self._release(grown, whole=True)
                self._part = "calls"
            elif self._part != "calls" and i not in self._tokenizer.stop_ids:
                self._undecided.append(i)
        self._release(grown, whole=False)
        return grown

    def finish(self, message: Message) -> dict[str, str]:
        """The rest, given the whole turn as parsed: a malformed call that was held back is content after all."""
        grown: dict[str, str] = {}
        self._release(grown, whole=True)
        sent = self._content.lstrip()
        if message.content.startswith(sent) and len(message.content) > len(sent):
            grown["content"] = grown.get("content", "") + message.content[len(sent) :]
        return grown

    def _release(self, grown: dict[str, str], whole: bool) -> None:
        """Move decided text over. A character may span several byte-level tokens: an unfinished one waits."""
        if not self._undecided:
            return
        text = self._tokenizer.decode(self._undecided)
        if text.endswith("�") and not whole:
            return
        grown[self._part] = grown.get(self._part, "") + text
        self._undecided.clear()
        if self._part == "content":
            self._content += text
