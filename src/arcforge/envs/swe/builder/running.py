"""One command in a checkout, under limits and with a frozen environment: bubblewrap where it works, else plain processes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from arcforge.core.protocols import ExecResult
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.limits import Limits
from arcforge.sandbox.process import ProcessSandbox
from arcforge.sandbox.spec import own_proc

# The same on every machine and at every time: clock zone, hash seed, locale; no user site, no bytecode in the tree.
FROZEN = {
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
}
MEMORY_BYTES = 4 << 30
FILE_BYTES = 256 << 20
OUTPUT_BYTES = 16 << 20
_INSIDE = Path("/tmp/checkout")


class Runner(Protocol):
    """Runs one command in a checkout. Raises SandboxError when its own machinery fails."""

    @property
    def name(self) -> str: ...

    def inside(self, checkout: Path) -> Path:
        """The path under which the command sees the checkout."""
        ...

    def run(
        self, argv: Sequence[str], checkout: Path, environment: Mapping[str, str], timeout: float,
        readable: Sequence[Path] = (),
    ) -> ExecResult:  # fmt: skip
        """`environment` is added to FROZEN and nothing else is set. `readable`: what the command needs to see besides."""
        ...


class ProcessRunner:
    """Plain processes of this user under rlimits: for trusted repositories only, the network stays open."""

    name = "process"

    def inside(self, checkout: Path) -> Path:
        return checkout.resolve()

    def run(
        self, argv: Sequence[str], checkout: Path, environment: Mapping[str, str], timeout: float,
        readable: Sequence[Path] = (),
    ) -> ExecResult:  # fmt: skip
        variables = {**FROZEN, "HOME": str(checkout), **environment}
        command = ["env", "-i", *(f"{key}={value}" for key, value in variables.items()), *argv]
        return _run(command, checkout, timeout)


class BubblewrapRunner:
    """Own user, process, network and mount namespaces; the machine read-only, the checkout at one fixed path, no network."""

    name = "bubblewrap"

    def inside(self, checkout: Path) -> Path:
        return _INSIDE

    def run(
        self, argv: Sequence[str], checkout: Path, environment: Mapping[str, str], timeout: float,
        readable: Sequence[Path] = (),
    ) -> ExecResult:  # fmt: skip
        variables = {**FROZEN, "HOME": "/tmp", **environment}
        seen = [part for path in readable for part in ("--ro-bind", str(path), str(path))]
        set_all = [part for key, value in variables.items() for part in ("--setenv", key, value)]
        command = [
            "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--uid", "1000", "--gid", "1000",
            "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", *own_proc(), "--tmpfs", "/tmp", *seen,
            "--bind", str(checkout.resolve()), str(_INSIDE), "--chdir", str(_INSIDE), "--clearenv", *set_all, "--", *argv,
        ]  # fmt: skip
        return _run(command, checkout, timeout)


def best_runner() -> Runner:
    """Bubblewrap when it is installed and may make namespaces here, else plain processes."""
    return BubblewrapRunner() if bubblewrap_works() else ProcessRunner()


def _run(command: Sequence[str], checkout: Path, timeout: float) -> ExecResult:
    """Not closed afterwards: that would delete the checkout, which belongs to the caller."""
    limits = Limits(
        cpu_seconds=math.ceil(timeout),
        memory_bytes=MEMORY_BYTES,
        file_bytes=FILE_BYTES,
        output_bytes=OUTPUT_BYTES,
    )
    return asyncio.run(ProcessSandbox(checkout, limits).exec(command, timeout))
