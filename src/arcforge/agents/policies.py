"""Context policies: which messages the model sees next (GLM-5 report, section 4.2.4).

A policy belongs to one episode and collects its decisions in `events`; the decisions are pure functions (`agents.context`), the
history itself is never changed. "Discard" follows the reading in which the opening (system message and question) stays
and everything after it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arcforge.agents.context import applied, clearing, omission
from arcforge.agents.summaries import summary_request, summary_text
from arcforge.core.errors import UserError
from arcforge.core.messages import Message
from arcforge.core.protocols import Completer, ContextEvent, ContextPolicy

KEEP, THRESHOLD = 5, 32_768


class KeepAll:
    """Everything, always. The other policies differ from it in what they `decide`."""

    name = "keep-all"

    def __init__(self) -> None:
        self.events: list[ContextEvent] = []

    async def prepare(self, messages: Sequence[Message], prompt_tokens: int) -> None:
        """Nothing has to be waited for."""

    def decide(self, messages: Sequence[Message], prompt_tokens: int) -> list[ContextEvent]:
        """New events; what was decided before is in `events`. Changes nothing."""
        return []

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]:
        """prompt_tokens: tokens of the last request and its answer, 0 before the first."""
        self.events += self.decide(messages, prompt_tokens)
        return applied(messages, self.events)


class KeepRecent(KeepAll):
    """Only the last `keep` observations (all results of one turn) stay; older ones become OMITTED. Reasoning and calls stay."""

    name = "keep-recent"

    def __init__(self, keep: int = KEEP) -> None:
        super().__init__()
        if keep < 0:
            raise UserError(f"{self.name}: keep is {keep}; it must be 0 or more")
        self.keep = keep

    def decide(self, messages: Sequence[Message], prompt_tokens: int) -> list[ContextEvent]:
        omitted = omission(messages, self.events, prompt_tokens, self.keep, self.name)
        return [omitted] if omitted else []


class DiscardAll(KeepAll):
    """When the last turn used more than `threshold` tokens, start again from the opening messages."""

    name = "discard-all"

    def __init__(self, threshold: int = THRESHOLD) -> None:
        super().__init__()
        self.threshold = _checked(self.name, threshold)

    def decide(self, messages: Sequence[Message], prompt_tokens: int) -> list[ContextEvent]:
        discarded = clearing(messages, self.events, prompt_tokens, self.threshold, self.name)
        return [discarded] if discarded else []


class Hierarchical(KeepRecent):
    """Keep-recent inside discard-all: old results are omitted first, the context discarded above the threshold."""

    name = "hierarchical"

    def __init__(self, keep: int = KEEP, threshold: int = THRESHOLD) -> None:
        super().__init__(keep)
        self.threshold = _checked(self.name, threshold)

    def decide(self, messages: Sequence[Message], prompt_tokens: int) -> list[ContextEvent]:
        discarded = clearing(messages, self.events, prompt_tokens, self.threshold, self.name)
        decided = [discarded] if discarded else []
        omitted = omission(messages, [*self.events, *decided], prompt_tokens, self.keep, self.name)
        return [*decided, omitted] if omitted else decided


class Summary(KeepAll):
    """When the last turn used more than `threshold` tokens, start again from the opening and a summary of what followed it.

    completer: writes the summary, in at most `max_tokens` tokens, from the context as it is then, an earlier summary included.
    """

    name = "summary"

    def __init__(self, completer: Completer, threshold: int = THRESHOLD, max_tokens: int = 2048) -> None:
        super().__init__()
        self.completer, self.threshold, self.max_tokens = completer, _checked(self.name, threshold), max_tokens

    async def prepare(self, messages: Sequence[Message], prompt_tokens: int) -> None:
        cleared = clearing(messages, self.events, prompt_tokens, self.threshold, self.name)
        if not cleared:
            return
        completion = await self.completer.complete(
            summary_request(applied(messages[: cleared.stop], self.events), self.max_tokens)
        )
        told: dict[str, Any] = {
            "action": "summarize",
            "text": summary_text(completion),
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
        }
        self.events.append(cleared.model_copy(update=told))


def _checked(name: str, threshold: int) -> int:
    if threshold < 1:
        raise UserError(f"{name}: threshold is {threshold} tokens; it must be 1 or more")
    return threshold


POLICIES: dict[str, Callable[..., ContextPolicy]] = {
    made.name: made for made in (KeepAll, KeepRecent, DiscardAll, Hierarchical, Summary)
}


def policy(name: str, **parameters: Any) -> ContextPolicy:
    """A fresh policy for one episode. UserError for an unknown name, or a parameter that is unknown or missing."""
    if name not in POLICIES:
        raise UserError(f"context policy {name!r}: choose one of {', '.join(POLICIES)}")
    try:
        return POLICIES[name](**parameters)
    except TypeError as error:
        raise UserError(f"context policy {name!r}: {str(error).partition(') ')[2] or error}") from None
