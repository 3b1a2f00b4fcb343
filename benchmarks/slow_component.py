"""A component of agentic RL whose rollouts have slow tools: `python benchmarks/slow_component.py LATENCY MODULE ARGUMENT...`.

LATENCY is JSON. MODULE is the orchestrator's or the task worker's; what the orchestrator starts is slow too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency import Latency, slowed

from arcforge.launch.local import Component, LocalLauncher

ORCHESTRATOR, WORKERS, WORKER = (
    f"arcforge.pipeline.{name}" for name in ("orchestrator", "task_workers", "task_worker")
)


class SlowLauncher(LocalLauncher):
    """Starts the components that run rollouts with slow tools, and all others as they are."""

    def __init__(self, folder: Path, latency: Latency) -> None:
        super().__init__(folder)
        self._latency = latency

    def start(self, name: str, argv: Sequence[str], **options: Any) -> Component:
        if tuple(argv[1:2]) == ("-m",) and argv[2] in (ORCHESTRATOR, WORKER):
            argv = [argv[0], str(Path(__file__).absolute()), self._latency.model_dump_json(), *argv[2:]]
        return super().start(name, argv, **options)


def main(encoded: str, module: str, *arguments: str) -> int:
    latency = Latency.model_validate_json(encoded)
    workers, worker = importlib.import_module(WORKERS), importlib.import_module(WORKER)
    _replace(workers, "LocalLauncher", lambda folder: SlowLauncher(folder, latency))
    _replace(worker, "attempt", slowed(worker.attempt, latency))
    return importlib.import_module(module).main(list(arguments))


def _replace(module: Any, name: str, value: Any) -> None:
    """Fails rather than measuring fast tools when the package has changed."""
    getattr(module, name)
    setattr(module, name, value)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
