"""What the processes of a stage's rollouts need to know: one file, read by the orchestrator and by every task worker."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from arcforge.clients.engines import Servers
from arcforge.clients.sglang import Interruptions
from arcforge.core.messages import Value


def task_component(family: str) -> str:
    """The name of a family's worker among the components, and of its files: a family's name may hold a path."""
    return f"task-{quote(family, safe='')}"


class FamilyShare(Value):
    """One registered family: its ratio among the groups, its group size, timeout in seconds and rollouts at once. agent: the
    command that makes them, empty for the agent loop."""

    name: str
    ratio: float = 1.0
    group_size: int = 8
    timeout: float = 120.0
    concurrency: int = 1_000_000
    agent: str = ""


class Job(Value):
    """The families, the engines, the buffer, the published weights and the orchestrator's numbers. Paths are
    absolute."""

    stage: str
    families: tuple[FamilyShare, ...]
    servers: Servers
    tokenizer: Path
    buffer: Path
    weights: Path
    folder: Path
    events: Path
    context: int
    batch: int
    max_staleness: int
    concurrency: int
    base_version: int
    seed: int

    def share(self, family: str) -> FamilyShare:
        return next(share for share in self.families if share.name == family)

    def address_file(self, family: str) -> Path:
        """Where a family's worker says where it listens."""
        return self.folder / f"{task_component(family)}.address"

    def interruptions(self) -> Interruptions:
        """Of the engines: counted by the orchestrator, read by the task workers."""
        return Interruptions(self.folder / "interruptions.json")

    def heartbeat(self, name: str) -> Path:
        return self.folder / f"{name}.heartbeat"
