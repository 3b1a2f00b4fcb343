"""A family's task worker as a process: `python -m arcforge.pipeline.task_worker JOB.json FAMILY`. Never imports torch.

It holds the family's sandboxes and graders, and a gateway of its own to the engines. Where an agent of its own makes the
rollouts, the gateway also listens on loopback for what that sends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.engines import token_engine
from arcforge.core.errors import DISK, BoundaryError, UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import atomic_write
from arcforge.envs.registry import family
from arcforge.launch.heartbeat import Heartbeat
from arcforge.launch.limits import raise_open_files
from arcforge.pipeline.job import Job, task_component
from arcforge.rl.gateway import Gateway
from arcforge.rl.runners import Attempt, FamilyRunner
from arcforge.rl.task_worker import TaskWorker
from arcforge.rollout.attempt import attempt
from arcforge.rollout.program import ProgramAgent, split

BEAT_SECONDS = 0.5
HOST = "127.0.0.1"


async def work(job: Job, name: str) -> None:
    """Serve rollouts of the family until a signal arrives."""
    events, engine = JsonLines(job.events), token_engine(job.servers, interruptions=job.interruptions())
    observe = lambda row: events.write({"stage": job.stage, **row})  # noqa: E731
    gateway = Gateway(engine, Tokenizer.load(job.tokenizer), job.context, observe=observe)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with attempts(gateway, job.share(name).agent) as run:
        worker = TaskWorker(FamilyRunner(family(name, job.seed), run, gateway))
        port = await worker.start(HOST, 0)
        atomic_write(job.address_file(name), f"http://{HOST}:{port}")
        heartbeat = Heartbeat(job.heartbeat(task_component(name)))
        while not stopped.is_set():
            heartbeat.beat()
            try:
                await asyncio.wait_for(stopped.wait(), BEAT_SECONDS)
            except TimeoutError:
                continue
        await worker.stop()
    await engine.close()


@asynccontextmanager
async def attempts(gateway: Gateway, agent: str) -> AsyncIterator[Attempt]:
    """How rollouts are made: by the agent loop, or by a command, for which the gateway listens meanwhile."""
    if not agent:
        yield attempt
        return
    from arcforge.rl.gateway_http import GatewayDoor, serve  # a web server, for those who need it

    door = GatewayDoor(gateway)
    async with serve(door, HOST):
        yield partial(attempt, agent=ProgramAgent(split(agent), door))


def main(arguments: list[str]) -> int:
    raise_open_files()
    try:
        asyncio.run(work(Job.model_validate_json(Path(arguments[0]).read_text()), arguments[1]))
    except (UserError, BoundaryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
