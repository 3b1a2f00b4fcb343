"""What benchmarks/async_rl.py asks of a contender's process and what it answers, and the clock that all of them use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from latency import Latency

from arcforge.core.messages import Value


class Cell(Value):
    """One measurement. checkpoint: where training starts. folder: for its files. sigma: of the latency, None for none."""

    contender: str
    checkpoint: Path
    folder: Path
    sigma: float | None
    steps: int
    groups: int
    group_size: int
    seed: int
    trl_threads: int = 2

    @property
    def latency(self) -> Latency:
        return Latency(sigma=self.sigma, seed=self.seed)


class Result(Value):
    """seconds: wall. cpu_seconds: of the process and all its descendants while the clock ran. trained: trajectories.
    rewards: mean of each step's trajectories. staleness: versions, mean over trained trajectories. calls, latency: tool calls
    and their seconds of sleep per trained trajectory. untrained: rollouts that were started but not trained by the end. about: versions."""

    seconds: float
    cpu_seconds: float
    trained: int
    rewards: tuple[float, ...]
    staleness: float = 0.0
    calls: float
    latency: float
    untrained: int = 0
    about: str = ""


class Clock:
    """Wall and CPU seconds of this process and its descendants since it was made."""

    def __init__(self) -> None:
        self._cpu, self._start = tree_seconds(os.getpid()), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._start, tree_seconds(os.getpid()) - self._cpu


def tree_seconds(root: int) -> float:
    """CPU seconds of a process, its living descendants and those that these have waited for (Linux)."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            parents[int(entry.name)], ticks[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(ticks[pid] for pid in tree) / os.sysconf("SC_CLK_TCK")
