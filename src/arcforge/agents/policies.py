"""Context policies: which messages the model sees next (GLM-5 report, section 4.2.4).

A policy belongs to one episode: discard-all and hierarchical remember where the current context starts. The history
itself is never changed; what was left out is told by `discards`. "Discard" follows the reading in which the opening (system
message and question) stays and everything after it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arcforge.core.errors import UserError
from arcforge.core.messages import Message
from arcforge.core.protocols import ContextPolicy

OMITTED = "Tool result is omitted to save tokens."


class KeepAll:
    """Everything, always."""

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]:
        return list(messages)


class KeepRecent:
    """Only the last `keep` tool results stay; older ones become OMITTED. Reasoning and calls stay."""

    def __init__(self, keep: int = 5) -> None:
        if keep < 0:
            raise UserError(f"keep-recent: keep is {keep}; it must be 0 or more")
        self.keep = keep

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]:
        results = [index for index, message in enumerate(messages) if message.role == "tool"]
        old = set(results[: max(0, len(results) - self.keep)])
        return [
            message.model_copy(update={"content": OMITTED}) if index in old else message
            for index, message in enumerate(messages)
        ]


class DiscardAll:
    """When the last turn used more than `threshold` tokens, start again from the opening messages."""

    def __init__(self, threshold: int = 32_768) -> None:
        if threshold < 1:
            raise UserError(f"discard-all: threshold is {threshold} tokens; it must be 1 or more")
        self.threshold = threshold
        self.discards: list[int] = []
        """History lengths (messages) at which the context was discarded."""

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]:
        """prompt_tokens: tokens of the last request and its answer, 0 before the first."""
        opening = next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))
        start = self.discards[-1] if self.discards else opening
        if prompt_tokens > self.threshold and len(messages) > start:
            self.discards.append(len(messages))
            start = len(messages)
        return [*messages[:opening], *messages[start:]]


class Hierarchical:
    """Keep-recent inside discard-all: old results are omitted first, the context discarded above the threshold."""

    def __init__(self, keep: int = 5, threshold: int = 32_768) -> None:
        self._recent, self._discard = KeepRecent(keep), DiscardAll(threshold)

    @property
    def discards(self) -> list[int]:
        return self._discard.discards

    def view(self, messages: Sequence[Message], prompt_tokens: int) -> list[Message]:
        return self._recent.view(self._discard.view(messages, prompt_tokens), prompt_tokens)


POLICIES: dict[str, Callable[..., ContextPolicy]] = {
    "keep-all": KeepAll,
    "keep-recent": KeepRecent,
    "discard-all": DiscardAll,
    "hierarchical": Hierarchical,
}


def policy(name: str, **parameters: Any) -> ContextPolicy:
    """A fresh policy for one episode. UserError for an unknown name or parameter."""
    if name not in POLICIES:
        raise UserError(f"context policy {name!r}: choose one of {', '.join(POLICIES)}")
    try:
        return POLICIES[name](**parameters)
    except TypeError:
        raise UserError(f"context policy {name!r} takes no {', '.join(parameters)}") from None
