"""Groups: several attempts at one task, for group-wise advantages and for pass@k."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from arcforge.agents.policies import KeepAll
from arcforge.core.protocols import ContextPolicy
from arcforge.core.tasks import Door, Task
from arcforge.core.trajectory import Trajectory
from arcforge.rollout.attempt import attempt


async def group(
    task: Task,
    door: Door,
    size: int,
    *,
    group_id: str,
    seed: int = 0,
    temperature: float = 1.0,
    top_p: float = 1.0,
    timeout: float = 60.0,
    limit: asyncio.Semaphore | None = None,
    policy: Callable[[], ContextPolicy] = KeepAll,
) -> list[Trajectory]:
    """`size` concurrent attempts, in order; each has a seed of its own and the rollout id `<group_id>/<attempt>`.

    Failures stay inside their trajectory and touch no other attempt. limit: bounds attempts at once across groups.
    """
    gate = limit or asyncio.Semaphore(size)

    async def member(number: int) -> Trajectory:
        rollout_id = f"{group_id}/{number}"
        async with gate:
            return await attempt(
                task,
                door,
                rollout_id=rollout_id,
                group_id=group_id,
                attempt=number,
                seed=random.Random(f"{seed}/{rollout_id}").getrandbits(31),
                temperature=temperature,
                top_p=top_p,
                timeout=timeout,
                policy=policy,
            )

    async with asyncio.TaskGroup() as tasks:
        members = [tasks.create_task(member(number)) for number in range(size)]
    return [task.result() for task in members]
