"""What one job or one sandbox may use. Standard library only: the server processes import this file."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The one description of limits. Which of them a kind of sandbox holds, and how, is told by `choose.unenforced`.

    wall_seconds: of one command, where the call names no timeout. cpu_seconds: of one process. cpus: cores that the whole
    sandbox may keep busy, 0 for all. memory_bytes: of the whole sandbox, its files included, where there are cgroups;
    else the address space of each process. processes: at once; 0 forbids new ones (of a fork server's job); without
    cgroups root is never held to it. file_bytes: the largest file. disk_bytes: of all that a sandbox writes.
    output_bytes: of stdout and of stderr; what comes after it is read and thrown away.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    cpus: float = 0.0
    memory_bytes: int = 2 << 30
    processes: int = 4096
    file_bytes: int = 64 << 20
    disk_bytes: int = 1 << 30
    output_bytes: int = 32 << 10


def set_rlimits(limits: Limits, address_space: bool = True, processes: bool = True) -> None:
    """Hold this process and its children to the limits. Values can only be lowered; what the system refuses is left."""
    wanted = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),  # SIGXCPU, a second later SIGKILL
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
    ]
    if address_space:
        wanted.append((resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes))
    if processes:
        wanted.append((resource.RLIMIT_NPROC, limits.processes, limits.processes))
    for kind, soft, hard in wanted:
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        with suppress(OSError, ValueError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (soft, hard))
