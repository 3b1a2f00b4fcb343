"""Those who wait in the event loop for what the engine's thread does: futures, streams, and how they hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from arcforge.serve.engine import EngineTimeout, Output

Future = asyncio.Future[Any]


@dataclass(eq=False)
class Stream:
    """Pieces on their way to whoever reads a request while it runs; told: tokens that are in them."""

    pieces: asyncio.Queue[Output | None] = field(default_factory=asyncio.Queue)
    told: int = 0


async def within(waited: Awaitable[Any], timeout: float, what: str) -> Any:
    try:
        async with asyncio.timeout(timeout):
            return await waited
    except TimeoutError:
        raise EngineTimeout(f"{what}: no answer within {timeout:g} s") from None


def settle(answers: list[tuple[Future | Stream, Any, BaseException | None]]) -> None:
    for waiter, value, error in answers:
        if isinstance(waiter, Stream):
            waiter.pieces.put_nowait(value)
        elif waiter.done():
            continue
        elif error is None:
            waiter.set_result(value)
        else:
            waiter.set_exception(error)
