"""Messages, tool calls and tool specifications, as plain values."""

from __future__ import annotations

import random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["system", "user", "assistant", "tool"]


class Value(BaseModel):
    """An immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(Value):
    """One call of a tool. `arguments` are typed by the tool's JSON schema (string "2" and integer 2 differ)."""

    name: str
    arguments: dict[str, Any] = {}
    id: str = ""


class ToolSpec(Value):
    """A tool as the model sees it. `parameters` is a JSON schema of type object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Message(Value):
    """One message of a conversation.

    `reasoning` is the thinking block (assistant only; None = no block was written). `trained` says whether the loss may
    touch an assistant message: erroneous segments stay in the context with `trained=False` (GLM-5 report, section 3.1).
    """

    role: Role
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    trained: bool = True


class Thinking(Value):
    """The thinking mode of one request (GLM-5 report, section 3.1).

    enabled=True, preserved=False: interleaved (default): reasoning of turns before the last user message is dropped.
    preserved=True: every reasoning block stays in the context. enabled=False for one call: turn-level thinking off.
    """

    enabled: bool = True
    preserved: bool = False


class Sampling(Value):
    """How to sample, and what to tell of it. temperature 0 is greedy; `seed` makes the request repeatable.

    max_tokens: at most so many new ones; 0 only reads the prompt. top_k: keep the k likeliest ids (0: all). min_p: keep ids
    of at least so much of the likeliest id's probability. logit_bias: added to the logits of these ids. top_logprobs: tell
    the n likeliest ids at every step. prompt_logprobs: tell the log-probability of every prompt token but the first. replay:
    tell which experts and which keys every token read. cache_salt: prefixes are shared only under the same one.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    logit_bias: dict[int, float] = {}
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    replay: bool = False
    cache_salt: str = ""


def turn_seed(seed: int, turn: int) -> int:
    """A seed of its own for every turn of a rollout: one seed for all would draw the same uniforms in each."""
    return random.Random(f"{seed}/{turn}").getrandbits(31)
