"""Where a family's rollouts run: in this process, or in a worker of their own behind HTTP (GLM-5 report, section 4.1.1).

A family's rollout and reward logic are behind one call, `Runner.run(order)`. A worker (`task_worker`) that hangs, leaks or dies
takes nobody else with it: it is started again, and its rollouts run once more under the same ids and seeds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from arcforge.core.errors import BoundaryError, Failure, TaskError
from arcforge.core.messages import Value
from arcforge.core.tasks import Door, Family, Split, Task
from arcforge.core.trajectory import Trajectory

PATIENCE = 60.0
"""Seconds without a worker (it starts, or starts again) after which a rollout fails."""
MOST_RUNS = 3
"""Workers that may go away under one rollout: what takes a worker down each time is not run for ever."""
RETRY_SECONDS = 0.2
GRACE = 5.0
"""Seconds beyond a rollout's own limit that its worker may take to answer."""


class Order(Value):
    """One rollout to run. attempt: its number in the group. timeout: seconds."""

    family: str
    split: Split
    index: int
    rollout_id: str
    group_id: str
    attempt: int
    seed: int
    temperature: float
    timeout: float

    @property
    def hard_limit(self) -> float:
        """An attempt ends itself at its timeout; after this many seconds one that does not is ended."""
        return 2 * self.timeout + 1


class Runner(Protocol):
    """Runs a family's rollouts. Whatever goes wrong in one comes back as its failure."""

    @property
    def name(self) -> str: ...

    async def run(self, order: Order) -> Trajectory: ...

    async def close(self) -> None: ...


class Attempt(Protocol):
    """Runs one rollout: `rollout.attempt.attempt`. Failures at a boundary come back inside the trajectory."""

    def __call__(
        self,
        task: Task,
        door: Door,
        *,
        rollout_id: str,
        group_id: str,
        attempt: int,
        seed: int,
        temperature: float,
        timeout: float,
    ) -> Awaitable[Trajectory]: ...


class FamilyRunner:
    """A family in this process."""

    def __init__(self, family: Family, attempt: Attempt, door: Door) -> None:
        self._family, self._attempt, self._door = family, attempt, door

    @property
    def name(self) -> str:
        return self._family.name

    async def run(self, order: Order) -> Trajectory:
        task_id = f"{order.family}/{order.index}"
        try:
            task = self._family.task(order.split, order.index)
            task_id = task.task_id
            async with asyncio.timeout(order.hard_limit):
                return await self._attempt(
                    task,
                    self._door,
                    rollout_id=order.rollout_id,
                    group_id=order.group_id,
                    attempt=order.attempt,
                    seed=order.seed,
                    temperature=order.temperature,
                    timeout=order.timeout,
                )
        except Exception as error:
            return failed(order, _failure(error), task_id)

    async def close(self) -> None:
        await self._family.close()


class RemoteRunner:
    """A family in a worker behind HTTP. address: where it listens at the moment, None while it is not there."""

    def __init__(self, name: str, address: Callable[[], str | None], patience: float = PATIENCE) -> None:
        self.name, self._address, self._patience = name, address, patience
        self._session: aiohttp.ClientSession | None = None

    async def run(self, order: Order) -> Trajectory:
        """A rollout whose worker went away is run again; nothing of it has been recorded anywhere."""
        alone_since, lost, problem = time.monotonic(), 0, "it did not start"
        while time.monotonic() - alone_since < self._patience and lost < MOST_RUNS:
            address = self._address()
            if address is not None:
                try:
                    return await self._post(address, order)
                except aiohttp.ClientConnectorError as error:
                    problem = str(error)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                    alone_since, lost, problem = time.monotonic(), lost + 1, str(error) or type(error).__name__
                except TimeoutError:
                    limit = order.hard_limit + GRACE
                    return failed(order, _failure(TimeoutError(f"the worker did not answer within {limit:g} s")))
                except (aiohttp.ClientResponseError, ValueError) as error:
                    return failed(order, TaskError(f"the worker of {self.name} answered nonsense: {error}").failure())
            await asyncio.sleep(RETRY_SECONDS)
        if lost == MOST_RUNS:
            reason = f"{lost} workers of {self.name} went away under it: {problem}"
        else:
            reason = f"no worker of {self.name} for {self._patience:g} s: {problem}"
        return failed(order, TaskError(reason).failure())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, address: str, order: Order) -> Trajectory:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        limit = aiohttp.ClientTimeout(total=order.hard_limit + GRACE)
        body = order.model_dump(mode="json")
        async with self._session.post(f"{address}/rollouts", json=body, timeout=limit, raise_for_status=True) as answer:
            return Trajectory.model_validate_json(await answer.read())


def failed(order: Order, failure: Failure, task_id: str = "") -> Trajectory:
    task_id = task_id or f"{order.family}/{order.index}"
    return Trajectory(rollout_id=order.rollout_id, family=order.family, task_id=task_id, failure=failure)


def _failure(error: Exception) -> Failure:
    """A defect of a task is that task's failure; the run and the other families go on."""
    if isinstance(error, BoundaryError):
        return error.failure()
    if isinstance(error, TimeoutError):
        return Failure(boundary="timeout", reason=str(error) or "the attempt did not end at its timeout")
    return TaskError(repr(error)).failure()
