"""What a sandbox is made of, and bubblewrap's arguments for it. Standard library only: the server process imports this file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from arcforge.sandbox.limits import Limits

READY = b"ready\n"
# What is written to it comes back once it runs: nothing that is planted inside can take its place before, and the end of its input,
# when the server dies, is its own. SIGCHLD ignored: the kernel reaps what is orphaned inside. A process 1 cannot be killed from inside.
KEEPER = (
    "/bin/sh", "-c",
    "if /usr/bin/env --ignore-signal=CHLD true 2>/dev/null; then exec /usr/bin/env --ignore-signal=CHLD cat; fi; exec cat",
)  # fmt: skip
_PROC_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROC_HIDDEN = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi", "/proc/timer_list")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Spec:
    """overlays: path inside -> folders of this machine, topmost first, which are seen there and may be written over without being
    changed; there must be one at "/". read_only: path inside -> file or folder of this machine. workdir: where commands run.
    env: all that they find set besides PATH and HOME. uid: who they are inside; no capability in any case. network: the
    machine's own, else only an own loopback. nested: whether namespaces may be made inside (a browser's own sandbox wants it)."""

    overlays: Mapping[str, tuple[str, ...]]
    read_only: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    network: bool = False
    nested: bool = False
    limits: Limits = field(default_factory=Limits)

    def environment(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TZ": "UTC", **self.env}


def upper_names(overlays: Mapping[str, object]) -> dict[str, str]:
    """Path inside -> name of its upper directory: the same for every sandbox with these overlays, and in its snapshots."""
    return {inside: f"upper-{place}" for place, inside in enumerate(sorted(overlays))}


def bubblewrap(spec: Spec, merged: Mapping[str, str], status: int) -> list[str]:
    """The command that sets the sandbox up and keeps it. merged: path inside -> where its overlay is mounted outside. status: the
    descriptor that is told the process id."""
    argv = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
    ]
    argv += ["--uid", str(spec.uid), "--gid", str(spec.uid), "--hostname", "sandbox", "--cap-drop", "ALL"]
    argv += ["--share-net"] if spec.network else []
    argv += [] if spec.nested else ["--disable-userns"]
    argv += ["--setenv", "PATH", PATH]  # of the first process; commands get the spec's
    for inside in sorted(merged, key=lambda path: (path != "/", path.count("/"))):
        argv += ["--bind", merged[inside], inside]
    for inside, outside in spec.read_only.items():
        argv += ["--ro-bind", outside, inside]
    argv += [*own_proc(), "--dev", "/dev", "--chdir", "/", "--json-status-fd", str(status)]
    return [*argv, "--", *KEEPER]


def own_proc() -> list[str]:
    """A /proc that cannot be written: for root on this machine, user 0 outside, bubblewrap alone would leave the kernel's
    settings open, whose files belong to that user."""
    argv = ["--proc", "/proc"]
    for path in _PROC_READ_ONLY:
        argv += ["--ro-bind-try", path, path]
    for path in filter(os.path.exists, _PROC_HIDDEN):
        argv += ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    return argv
