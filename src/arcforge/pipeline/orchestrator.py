"""The orchestrator as a process: `python -m arcforge.pipeline.orchestrator JOB.json`. Never imports torch.

It starts a task worker per family and restarts those that die.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from arcforge.clients.engines import engine_control
from arcforge.core.errors import DISK, BoundaryError, UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import atomic_write
from arcforge.launch.limits import raise_open_files
from arcforge.pipeline.job import Job
from arcforge.pipeline.task_workers import TaskWorkers
from arcforge.rl.buffer import BufferWriter
from arcforge.rl.ledger import Counts
from arcforge.rl.orchestrator import MultiTaskOrchestrator, OrchestratorConfig, TaskEntry
from arcforge.rl.publish import Published


async def work(job_file: Path) -> None:
    """Run until the stop file appears or a signal arrives; then write the books to accounts.json."""
    job = Job.model_validate_json(job_file.read_text())
    events, control = JsonLines(job.events), engine_control(job.servers, interruptions=job.interruptions())
    observe = lambda row: events.write({"stage": job.stage, **row})  # noqa: E731
    buffer = BufferWriter(job.buffer, job.stage)

    async def load(published: Published) -> None:
        await control.update_weights(published.folder, published.version)

    with TaskWorkers(job_file, job, observe) as workers:
        entries = [
            TaskEntry(
                workers.runner(share.name),
                share.ratio,
                share.group_size,
                concurrency=share.concurrency,
                timeout=share.timeout,
            )
            for share in job.families
        ]
        orchestrator = MultiTaskOrchestrator(
            entries,
            buffer,
            job.weights,
            OrchestratorConfig(
                batch=job.batch, max_staleness=job.max_staleness, concurrency=job.concurrency, seed=job.seed
            ),
            stop_file=job.folder / "stop",
            heartbeat=job.heartbeat("orchestrator"),
            base_version=job.base_version,
            on_publish=load,
            observe=observe,
        )
        orchestrator.stop_on_signals()
        counts = await _until_done(orchestrator.run(), workers.supervise())
        for entry in entries:
            await entry.runner.close()
    atomic_write(job.folder / "accounts.json", counts.model_dump_json())
    buffer.close()
    await control.close()


async def _until_done(run: Coroutine[Any, Any, Counts], supervision: Coroutine[Any, Any, None]) -> Counts:
    """The result of the run, or what the supervision raised."""
    running, watching = asyncio.create_task(run), asyncio.create_task(supervision)
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
        return await running
    finally:
        for task in (running, watching):
            task.cancel()
        await asyncio.wait((running, watching), timeout=10)


def main(arguments: list[str]) -> int:
    raise_open_files()
    try:
        asyncio.run(work(Path(arguments[0])))
    except (UserError, BoundaryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
