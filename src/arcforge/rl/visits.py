"""What a rollout's owner decides of its calls over HTTP, and what he is told of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pydantic import Field

from arcforge.core.errors import EngineError, GatewayError, UserError
from arcforge.core.messages import Message, Sampling, Thinking, turn_seed
from arcforge.rl.gateway import Sampled
from arcforge.serve.chat_schema import ChatBody, ThinkingField
from arcforge.serve.http import ClientLeft
from arcforge.serve.messages_schema import MessagesBody
from arcforge.serve.messages_schema import ThinkingField as MessagesThinking
from arcforge.serve.token_schema import Exact, Seed
from arcforge.serve.turns import Turn

PATIENCE_SECONDS = 60.0
AnyBody = TypeVar("AnyBody", ChatBody, MessagesBody)


class Fixed(Exact):
    """What the rollout's owner decides in place of the agent: how every turn is sampled, and whether it thinks.

    With a temperature, what the agent says of top_k and min_p is passed over as well: what is trained was sampled as the
    owner said. How long a turn may be stays the agent's. seed: of the rollout; each of its turns has one of its own from it.
    """

    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Seed | None = None
    thinking: ThinkingField | None = None

    @classmethod
    def of(cls, sampling: Sampling, thinking: Thinking) -> Fixed:
        said = ThinkingField(type="enabled" if thinking.enabled else "disabled", clear_thinking=not thinking.preserved)
        return cls(temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed, thinking=said)

    def put_into(self, body: AnyBody, turn: int) -> AnyBody:
        """turn: the call's number among those of the rollout."""
        update = self.model_dump(exclude_none=True, exclude={"thinking", "seed"})
        if self.temperature is not None:
            update |= {name: None for name in ("top_k", "min_p") if name in type(body).model_fields}
        if self.seed is not None:
            update["seed"] = turn_seed(self.seed, turn)
        if self.thinking is not None:
            kind = ThinkingField if isinstance(body, ChatBody) else MessagesThinking
            clear = self.thinking.clear_thinking is not False
            update["thinking"] = kind(type=self.thinking.type, clear_thinking=clear)
        return body.model_copy(update=update)


class Visit:
    """The calls of one rollout. Implements rollout.program.Visit."""

    def __init__(self, fixed: Fixed, address: str) -> None:
        """address: of the rollout."""
        self._fixed = fixed
        self.openai_url, self.anthropic_url = f"{address}/v1", address
        self.turns = self.tool_calls = self.prompt_tokens = self.completion_tokens = 0
        self.model_seconds = 0.0
        self.problem = self.refused = ""
        self.messages: Sequence[Message] = ()
        self._calls = self._under_way = 0
        self._since = 0.0

    def decided(self, body: AnyBody) -> AnyBody:
        """The body of the next call as the owner wants it."""
        self._calls += 1
        return self._fixed.put_into(body, self._calls - 1)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call: what it failed for, and the seconds in which at least one was under way."""
        start = time.perf_counter()
        if not self._under_way:
            self._since = start
        self._under_way += 1
        try:
            yield
        except Exception as error:
            self._failed(error, time.perf_counter() - start)
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self.model_seconds += time.perf_counter() - self._since

    def answered(self, turn: Turn, sampled: Sampled) -> None:
        answer = sampled.completion.message
        self.turns, self.problem, self.messages = self.turns + 1, "", (*turn.messages, answer)
        self.tool_calls += len(answer.tool_calls)
        self.prompt_tokens += sampled.completion.prompt_tokens
        self.completion_tokens += sampled.completion.completion_tokens

    def _failed(self, error: Exception, seconds: float) -> None:
        """A call that the agent should not have made is refused. That it hung up says nothing of the engine, unless it had waited
        longer than an engine that works lets anybody wait."""
        if isinstance(error, UserError | GatewayError):
            self.refused = str(error)
        elif isinstance(error, ClientLeft):
            if seconds > PATIENCE_SECONDS:
                self.problem = f"the engine gave no answer within {seconds:.0f} s; the agent hung up"
        else:
            self.problem = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
