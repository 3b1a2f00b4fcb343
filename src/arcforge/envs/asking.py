"""One question to a model, read strictly: an answer that cannot be read is asked for again, and then is a typed failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from arcforge.core.errors import BoundaryError, EngineError, RolloutTimeout
from arcforge.core.messages import Message, Sampling
from arcforge.core.protocols import Completer, CompletionRequest

Read = TypeVar("Read")


@dataclass(frozen=True)
class Asker:
    """A model and how it is asked. name: as provenance tells it. seconds: for one answer. retries: further calls after an answer
    that cannot be read. seed: all seeds of sampling follow from it and from what is asked."""

    completer: Completer
    name: str
    seconds: float = 600.0
    max_tokens: int = 8192
    retries: int = 2
    seed: int = 0

    async def answer(self, messages: Sequence[Message], session: str, temperature: float = 1.0, turn: int = 0) -> str:
        """Its text. RolloutTimeout when it takes too long, EngineError and GatewayError as the completer raises them, ValueError
        for an answer that was cut off."""
        seed = random.Random(f"{self.seed}/{session}/{turn}").getrandbits(31)
        sampling = Sampling(max_tokens=self.max_tokens, temperature=temperature, seed=seed)
        request = CompletionRequest(messages=tuple(messages), sampling=sampling, session=session)
        try:
            async with asyncio.timeout(self.seconds):
                completion = await self.completer.complete(request)
        except TimeoutError:
            raise RolloutTimeout(f"{self.name} gave no answer within {self.seconds:g} s") from None
        if completion.finish_reason == "length":
            raise ValueError(completion.problem or f"the answer was cut off at its longest, {self.max_tokens} tokens")
        return completion.message.content

    async def read(
        self,
        messages: Sequence[Message],
        session: str,
        read: Callable[[str], Read],
        failure: type[BoundaryError] = EngineError,
    ) -> Read:
        """What `read` makes of the answer, which raises ValueError for one that it does not take.

        Greedy at first; drawn when asked again, or the same answer would come. `failure` when none could be read.
        """
        problem = ""
        for turn in range(self.retries + 1):
            try:
                return read(await self.answer(messages, session, temperature=1.0 if turn else 0.0, turn=turn))
            except ValueError as error:
                problem = str(error)
        raise failure(f"no answer of {self.retries + 1} by {self.name} could be read; the last: {problem}")


def unfenced(text: str) -> str:
    """Without the code fence that many models put around an answer of one JSON object."""
    lines = text.strip().split("\n")
    fenced = len(lines) > 2 and lines[0] in ("```json", "```") and lines[-1].strip() == "```"
    return "\n".join(lines[1:-1]) if fenced else text.strip()
