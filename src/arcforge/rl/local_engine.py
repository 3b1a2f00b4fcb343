"""An `infer.Engine` in this process as a `TokenEngine`: one task steps it while requests wait for their tokens."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Sampling
from arcforge.core.trajectory import TokenSpan
from arcforge.infer.engine import Engine


class LocalTokenEngine:
    """Requests are admitted in the order of their calls, so the same calls give the same batches and the same tokens."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._futures: dict[str, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._pump: asyncio.Task[None] | None = None

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        request_id = f"{session}#{next(self._numbers)}"
        try:
            self.engine.add(prompt_ids, sampling, request_id)
        except UserError as error:
            raise EngineError(str(error)) from None
        future = self._futures[request_id] = asyncio.get_running_loop().create_future()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        try:
            await future
        except asyncio.CancelledError:
            self._futures.pop(request_id, None)
            self.engine.abort(request_id)
            self.engine.discard(request_id)
            raise
        output = self.engine.result(request_id)
        return output.spans, output.finish_reason

    async def score(self, ids: Sequence[int]) -> list[float]:
        return self.engine.score([list(ids)])[0]

    async def _run(self) -> None:
        """Step until nothing is left; between steps everyone else gets a turn."""
        await asyncio.sleep(0)
        while self.engine.has_work:
            try:
                finished = self.engine.step()
            except Exception as error:
                self._fail(error)
                return
            for request_id in finished:
                future = self._futures.pop(request_id, None)
                if future is not None and not future.done():
                    future.set_result(None)
            await asyncio.sleep(0)

    def _fail(self, error: Exception) -> None:
        futures, self._futures = self._futures, {}
        for request_id, future in futures.items():
            self.engine.abort(request_id)
            self.engine.discard(request_id)
            if not future.done():
                future.set_exception(EngineError(f"the engine failed: {error!r}"))
