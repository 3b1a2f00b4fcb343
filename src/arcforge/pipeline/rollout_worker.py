"""The orchestrator as a process: `python -m arcforge.pipeline.rollout_worker JOB.json`. Never imports torch.

The job names the families, the engines' addresses, the buffer, the published weights and the orchestrator's numbers.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.arcforge import EngineControl, EngineFleet
from arcforge.core.errors import DISK, BoundaryError, UserError
from arcforge.core.messages import Value
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import atomic_write
from arcforge.envs.registry import family
from arcforge.rl.buffer import BufferWriter
from arcforge.rl.gateway import Gateway
from arcforge.rl.orchestrator import MultiTaskOrchestrator, OrchestratorConfig, TaskEntry
from arcforge.rl.publish import Published
from arcforge.rollout.attempt import attempt


class FamilyShare(Value):
    """One registered family: its ratio among the groups, its group size and timeout in seconds."""

    name: str
    ratio: float = 1.0
    group_size: int = 8
    timeout: float = 120.0


class Job(Value):
    """Everything the process needs; paths are absolute."""

    stage: str
    families: tuple[FamilyShare, ...]
    engine_urls: tuple[str, ...]
    tokenizer: Path
    buffer: Path
    weights: Path
    folder: Path
    events: Path
    context: int
    temperature: float
    batch: int
    max_staleness: int
    concurrency: int
    base_version: int
    seed: int


async def work(job: Job) -> None:
    """Run until the stop file appears or a signal arrives; then write the books to accounts.json."""
    events = JsonLines(job.events)
    engine, control = EngineFleet(job.engine_urls), EngineControl(job.engine_urls)
    gateway = Gateway(engine, Tokenizer.load(job.tokenizer), job.context, observe=events.write)
    families = [(share, family(share.name, job.seed)) for share in job.families]
    entries = [
        TaskEntry(
            made,
            share.ratio,
            share.group_size,
            timeout=share.timeout,
            temperature=job.temperature,
        )
        for share, made in families
    ]
    buffer = BufferWriter(job.buffer, job.stage)

    async def load(published: Published) -> None:
        await control.update_weights(published.folder, published.version)

    orchestrator = MultiTaskOrchestrator(
        entries,
        attempt,
        gateway,
        buffer,
        job.weights,
        OrchestratorConfig(
            batch=job.batch, max_staleness=job.max_staleness, concurrency=job.concurrency, seed=job.seed
        ),
        stop_file=job.folder / "stop",
        heartbeat=job.folder / "orchestrator.heartbeat",
        base_version=job.base_version,
        on_publish=load,
        observe=lambda row: events.write({"stage": job.stage, **row}),
    )
    orchestrator.stop_on_signals()
    counts = await orchestrator.run()
    atomic_write(job.folder / "accounts.json", counts.model_dump_json())
    buffer.close()
    for _, made in families:
        await made.close()
    await engine.close()
    await control.close()


def main(arguments: list[str]) -> int:
    try:
        asyncio.run(work(Job.model_validate_json(Path(arguments[0]).read_text())))
    except (UserError, BoundaryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
