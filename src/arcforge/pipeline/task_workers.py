"""The orchestrator's task workers: one process per family, started again when it dies or hangs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcforge.core.errors import UserError
from arcforge.launch.local import ComponentDied, ComponentError, LocalLauncher
from arcforge.pipeline.job import Job, task_component
from arcforge.rl.runners import RemoteRunner

LOOK_SECONDS = 0.1
SHORT_LIFE, MOST_SHORT_LIVES = 10.0, 5
"""Seconds that a worker must live to count as one that works, and starts in a row that may fail."""


class TaskWorkers:
    """Use it as a context around the orchestrator, and run `supervise()` beside it. observe: receives an event per restart."""

    def __init__(self, job_file: Path, job: Job, observe: Callable[[dict[str, Any]], None]) -> None:
        self._job_file, self._job, self._observe = job_file, job, observe
        self._launcher = LocalLauncher(job.folder / "logs")
        self._started: dict[str, float] = {}
        self._short_lives: dict[str, int] = {}

    def __enter__(self) -> TaskWorkers:
        for share in self._job.families:
            self._start(share.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._launcher.stop()

    def runner(self, family: str) -> RemoteRunner:
        file = self._job.address_file(family)
        return RemoteRunner(family, lambda: file.read_text() if file.exists() else None)

    async def supervise(self) -> None:
        """Until cancelled. UserError when a worker does not stay alive however often it is started."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for share in self._job.families:
                problem = self._problem(task_component(share.name))
                if problem is None:
                    continue
                short = time.monotonic() - self._started[share.name] < SHORT_LIFE
                lives = self._short_lives[share.name] = self._short_lives.get(share.name, 0) + 1 if short else 0
                row = {"who": "orchestrator", "kind": "worker_restart", "family": share.name, "reason": problem.line}
                self._observe(row)
                if lives >= MOST_SHORT_LIVES:
                    raise UserError(f"the worker of {share.name} does not stay alive: {problem.line}")
                self._launcher.kill(task_component(share.name))
                self._start(share.name)

    def _problem(self, name: str) -> ComponentError | None:
        """A worker that ended is missing, however well it ended."""
        component = self._launcher.component(name)
        if component.exit_code == 0:
            return ComponentDied(name, 0, component.log)
        return self._launcher.problem(name)

    def _start(self, family: str) -> None:
        self._job.address_file(family).unlink(missing_ok=True)
        argv = [sys.executable, "-m", "arcforge.pipeline.task_worker", str(self._job_file), family]
        self._launcher.start(task_component(family), argv, heartbeat=self._job.heartbeat(task_component(family)))
        self._started[family] = time.monotonic()
