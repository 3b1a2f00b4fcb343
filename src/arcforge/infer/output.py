"""What comes back of a request. What serves text imports this without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arcforge.core.trajectory import TokenSpan

if TYPE_CHECKING:  # a gateway beside the trainer writes outputs of its own, and has no torch
    from arcforge.infer.replay import Replay
    from arcforge.infer.sampler import Likeliest


@dataclass
class Output:
    """A finished request.

    spans: model spans in order, split where the weight version changed. finish_reason: "stop" | "length" | "abort";
    "" for the tokens so far of a request that goes on.
    top_logprobs: per sampled token the (id, log-probability) of the likeliest ids, where they were asked for.
    prompt_logprobs: of prompt[1:] under the weights that computed them, and replay: what was routed and selected for every
    token but the last, where they were asked for. seconds: from its arrival to its end; first_seconds: to its first token.
    """

    spans: list[TokenSpan]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    top_logprobs: list[Likeliest] = field(default_factory=list)
    prompt_logprobs: list[float] | None = None
    replay: Replay | None = None
    seconds: float = 0.0
    first_seconds: float = 0.0
