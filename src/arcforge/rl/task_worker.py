"""A family's rollouts as a microservice (GLM-5 report, section 4.1.1).

POST /rollouts    an `Order` -> its `Trajectory`, when it is over; a client that goes away ends it
GET /health       {"family", "running", "done"}
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from pydantic import ValidationError

from arcforge.rl.runners import Order, Runner

MOST_BYTES = 1 << 20


class TaskWorker:
    """Serves one runner until it is stopped."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._running, self._done = 0, 0
        self._site: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0."""
        app = web.Application(client_max_size=MOST_BYTES)
        app.add_routes([web.post("/rollouts", self._rollout), web.get("/health", self._health)])
        self._site = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await self._site.setup()
        await web.TCPSite(self._site, host, port, backlog=4096).start()
        return self._site.addresses[0][1]

    async def stop(self) -> None:
        """Ends what runs: the other side starts it again elsewhere."""
        if self._site is not None:
            await self._site.cleanup()
        await self._runner.close()

    async def _rollout(self, request: web.Request) -> web.Response:
        try:
            order = Order.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=400)
        if order.family != self._runner.name:
            problem = f"this worker runs {self._runner.name}, not {order.family}"
            return web.json_response({"error": problem}, status=404)
        self._running += 1
        try:
            trajectory = await self._runner.run(order)
        finally:
            self._running -= 1
        self._done += 1
        # A large trajectory must not hold up the others' events.
        text = await asyncio.to_thread(trajectory.model_dump_json)
        return web.Response(text=text, content_type="application/json")

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"family": self._runner.name, "running": self._running, "done": self._done})
