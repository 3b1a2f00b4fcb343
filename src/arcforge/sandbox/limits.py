"""What one job may use. Standard library only: the fork server's process imports this file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Per job. cpu_seconds, memory_bytes (address space), file_bytes (largest file) and processes are rlimits.

    processes counts every process of the user (the kernel's rule) and is not enforced for root; 0 forbids new ones.
    output_bytes caps stdout and stderr, each; what comes after it is read and thrown away.
    """

    cpu_seconds: int = 10
    memory_bytes: int = 2 << 30
    file_bytes: int = 64 << 20
    processes: int = 4096
    output_bytes: int = 32 << 10
