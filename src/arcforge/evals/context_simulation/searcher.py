"""The scripted model of the simulation: it knows what it sees in a request and nothing else, and reads worse the longer that is.

Opening the right page, it recognises it with a probability that falls with the tokens of its context. What it takes a page
for is written into its reasoning, and believed for as long as that is seen: a missed page is not opened again soon.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from arcforge.core.messages import Message, ToolCall
from arcforge.core.protocols import Completion, CompletionRequest
from arcforge.evals.context_simulation.world import TOKEN_CHARS

SEARCHES_BEFORE_REREADING = 4
_QUESTION = re.compile(r"From (\S+), (\d+) facts on")
_NOTE = re.compile(r"(\S+) (holds|lacks) what follows (fact-\w+)(?:: (fact-\w+))?")
_SAYS = re.compile(r"It says: (fact-\w+)")

Note = tuple[str, str, str, str]
"""Page, "holds" or "lacks", the fact before, the fact it holds."""


@dataclass(frozen=True)
class Reading:
    """Chance of seeing what a text says: best / (1 + (tokens / half)^2). half: the context at which half of it is left."""

    best: float = 0.9
    half: float = 32_768

    def chance(self, tokens: int) -> float:
        return self.best / (1 + (tokens / self.half) ** 2)


class Searcher:
    """A Completer. It searches hop by hop, opens each found page that it has not dismissed, and answers with the last fact.

    window: a request of more tokens is answered by nothing, finish reason "length". longest: tokens of its longest request.
    """

    def __init__(self, reading: Reading, window: int, thought_tokens: int) -> None:
        self._reading, self._window = reading, window
        self._thought = "thought " * (thought_tokens * TOKEN_CHARS // 8)
        self.longest = 0

    async def complete(self, request: CompletionRequest) -> Completion:
        tokens = count_tokens(request.messages)
        self.longest = max(self.longest, tokens)
        if tokens > self._window:
            return Completion(message=Message(role="assistant"), finish_reason="length", prompt_tokens=tokens)
        message = self._turn(request, tokens)
        return Completion(
            message=message,
            finish_reason="tool_calls" if message.tool_calls else "stop",
            prompt_tokens=tokens,
            completion_tokens=count_tokens([message]),
        )

    def _turn(self, request: CompletionRequest, tokens: int) -> Message:
        seen = Seen(request.messages)
        note = self._judge(seen, random.Random(request.sampling.seed), tokens)
        fact, answer = seen.position(note)
        if answer:
            return Message(role="assistant", content=fact, reasoning=note)
        page = seen.next_page(fact, note)
        call = (
            ToolCall(name="open", arguments={"page": page})
            if page
            else ToolCall(name="search", arguments={"query": fact, "wording": request.sampling.seed})
        )
        call = call.model_copy(update={"id": f"call-{request.sampling.seed}"})
        return Message(role="assistant", reasoning=f"{note} {self._thought}", tool_calls=(call,))

    def _judge(self, seen: Seen, rng: random.Random, tokens: int) -> str:
        """What it makes of the page that it opened last; empty if the last message is none."""
        page, text = seen.opened()
        if not page:
            return ""
        fact, _ = seen.position("")
        says = _SAYS.search(text[:200])
        if says and rng.random() < self._reading.chance(tokens):
            return f"{page} holds what follows {fact}: {says[1]}"
        return f"{page} lacks what follows {fact}"


class Seen:
    """What a request shows: the question, notes in reasoning or in a summary, searches, and the last answer of a tool."""

    def __init__(self, messages: Sequence[Message]) -> None:
        question = next(found for message in messages if (found := _QUESTION.search(message.content)))
        self.start, self.hops = question[1], int(question[2])
        self._messages = messages
        told = (message.reasoning if message.role == "assistant" else message.content for message in messages)
        roles = ("assistant", "user")
        self.notes = [
            note for message, text in zip(messages, told) if message.role in roles for note in notes_of(text or "")
        ]

    def position(self, note: str) -> tuple[str, bool]:
        """The last fact that is known, a new note included, and whether it is the answer."""
        next_fact = {before: after for _, held, before, after in [*self.notes, *notes_of(note)] if held == "holds"}
        fact, hops = self.start, 0
        while hops < self.hops and fact in next_fact:
            fact, hops = next_fact[fact], hops + 1
        return fact, hops == self.hops

    def opened(self) -> tuple[str, str]:
        """The page whose text is the last message, and the text."""
        if len(self._messages) < 2 or self._messages[-1].role != "tool":
            return "", ""
        call = self._messages[-2].tool_calls[0]
        return (call.arguments["page"], self._messages[-1].content) if call.name == "open" else ("", "")

    def next_page(self, fact: str, note: str) -> str:
        """A page of the last search for `fact` that was dismissed the fewest times, if few enough; empty: search again.

        Only pages that no note dismisses are opened, until several searches have turned up nothing.
        """
        dismissed = Counter(
            page for page, held, before, _ in [*self.notes, *notes_of(note)] if (held, before) == ("lacks", fact)
        )
        searches = [index for index, message in enumerate(self._messages) if _query(message) == fact]
        if not searches or searches[-1] + 1 >= len(self._messages):
            return ""
        found = [name for name in self._messages[searches[-1] + 1].content.split("\n") if name.startswith("page-")]
        opened = {
            call.arguments.get("page") for message in self._messages[searches[-1] :] for call in message.tool_calls
        }
        allowed = (len(searches) - 1) // SEARCHES_BEFORE_REREADING
        open_ones = [page for page in found if page not in opened and dismissed[page] <= allowed]
        return min(open_ones, key=lambda page: dismissed[page], default="")


class Summarizer:
    """A Completer that writes summaries for the searcher: each note in the transcript, if it sees it with the same reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def complete(self, request: CompletionRequest) -> Completion:
        text, tokens = request.messages[-1].content, count_tokens(request.messages)
        rng = random.Random(zlib.crc32(text.encode()))
        kept = [note for note in notes_of(text) if rng.random() < self._reading.chance(tokens)]
        message = Message(role="assistant", content="\n".join(map(told, kept)))
        return Completion(
            message=message,
            finish_reason="stop",
            prompt_tokens=tokens,
            completion_tokens=count_tokens([message]),
        )


@lru_cache(maxsize=1 << 16)
def notes_of(text: str) -> tuple[Note, ...]:
    return tuple((page, held, before, after) for page, held, before, after in _NOTE.findall(text))


def told(note: Note) -> str:
    page, held, before, after = note
    return f"{page} {held} what follows {before}" + (f": {after}" if after else "")


def count_tokens(messages: Sequence[Message]) -> int:
    """Characters of texts, thoughts and calls, over TOKEN_CHARS."""
    calls = sum(40 for message in messages for _ in message.tool_calls)
    return (sum(len(message.content) + len(message.reasoning or "") for message in messages) + calls) // TOKEN_CHARS


def _query(message: Message) -> str:
    """The fact that the message searches for; empty if it does not search."""
    call = message.tool_calls[0] if message.tool_calls else None
    return str(call.arguments["query"]) if call and call.name == "search" else ""
