"""A warm pool: sandboxes made before they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from arcforge.core.errors import SandboxError
from arcforge.core.protocols import Sandbox

Box = TypeVar("Box", bound=Sandbox)


class Pool(Generic[Box]):
    """Keeps up to `size` fresh sandboxes of one kind ready. A sandbox is used once: whoever takes it closes it.

    create: makes one. makers: how many are made at once. Used as an async context; its sandboxes are closed at the end.
    """

    def __init__(self, create: Callable[[], Awaitable[Box]], size: int, makers: int = 2) -> None:
        self._create, self._size, self._makers = create, size, makers
        self._ready: asyncio.Queue[Box | SandboxError] = asyncio.Queue()
        self._filling: set[asyncio.Task[None]] = set()

    async def take(self, timeout: float = 60.0) -> Box:
        """A ready sandbox, or the next that is made. SandboxError when it cannot be made, or not in `timeout` seconds."""
        self._fill()
        try:
            found = await asyncio.wait_for(self._ready.get(), timeout)
        except TimeoutError:
            raise SandboxError(f"no sandbox was ready within {timeout:.0f} s") from None
        self._fill()
        if isinstance(found, SandboxError):
            raise found
        return found

    async def full(self) -> None:
        """Returns when as many are ready as there shall be, or none more can be made."""
        self._fill()
        while self._filling:
            await asyncio.wait(self._filling)

    async def __aenter__(self) -> Pool[Box]:
        self._fill()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)
        while not self._ready.empty():
            found = self._ready.get_nowait()
            if not isinstance(found, SandboxError):
                await found.close()

    def _fill(self) -> None:
        while len(self._filling) < self._makers and self._ready.qsize() + len(self._filling) < self._size:
            task = asyncio.create_task(self._make())
            self._filling.add(task)
            task.add_done_callback(self._made)

    async def _make(self) -> None:
        try:
            self._ready.put_nowait(await self._create())
        except SandboxError as error:
            self._ready.put_nowait(error)

    def _made(self, task: asyncio.Task[None]) -> None:
        self._filling.discard(task)
        if not task.cancelled():
            self._fill()
