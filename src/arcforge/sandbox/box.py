"""One sandbox as the server process holds it: its store, its overlays, its control groups, its first process. Standard library only."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from arcforge.sandbox import kernel
from arcforge.sandbox.cgroups import Cgroups, Group
from arcforge.sandbox.jobs import Job
from arcforge.sandbox.spec import READY, Spec, bubblewrap, upper_names


@dataclass
class Box:
    """store: a memory file system as large as the sandbox's disk: upper and work directories by overlay. layers: those of snapshots
    that it lies on. lifeline: the input of its first process. job: bubblewrap, which sets it up and ends with it. asked, closer:
    the requests to answer when it is up and when it is gone, 0 for none. failure: why it did not come up. kills: for memory, as
    last asked."""

    number: int
    spec: Spec
    store: str
    group: Group
    status: tuple[int, int]
    lifeline: tuple[int, int]
    layers: tuple[int, ...] = ()
    pidfd: int = -1
    asked: int = 0
    closer: int = 0
    failure: str = ""
    job: Job | None = field(default=None, repr=False)
    kills: int = 0

    def overlay(self, inside: str) -> tuple[str, list[str]]:
        """(upper directory, lower directories) of the overlay at a path inside. OSError when there is none."""
        if inside not in self.spec.overlays:
            raise OSError(f"no overlay at {inside}")
        return os.path.join(self.store, upper_names(self.spec.overlays)[inside]), list(self.spec.overlays[inside])

    def uppers(self) -> list[str]:
        return [self.overlay(inside)[0] for inside in self.spec.overlays]

    def become(self) -> NoReturn:
        """In a forked child: mount the overlays where only this sandbox sees them and turn into bubblewrap."""
        self.group.join()
        kernel.unshare(kernel.CLONE_NEWNS)
        merged = {}
        for inside in self.spec.overlays:
            upper, lowers = self.overlay(inside)
            work, seen = f"{upper}.work", f"{upper}.seen"
            for folder in (work, seen):
                os.mkdir(folder)
            options = f"lowerdir={':'.join(map(_escaped, lowers))},upperdir={upper},workdir={work}"
            kernel.mount("overlay", seen, "overlay", 0, f"{options},{_options()}")
            merged[inside] = seen
        os.dup2(self.lifeline[0], 0)
        os.set_inheritable(self.status[1], True)
        argv = bubblewrap(self.spec, merged, self.status[1])
        os.execvp(argv[0], argv)

    def came_up(self) -> None:
        """Take hold of its first process."""
        told = os.read(self.status[0], 4096)
        self.pidfd = os.pidfd_open(json.loads(told.splitlines()[0])["child-pid"])

    def enter(self, kinds: int) -> None:
        """Move this process into the sandbox."""
        self.group.join()
        kernel.join_namespaces(self.pidfd, kinds)

    def signal(self) -> None:
        """Kill its first process, and with it everything inside."""
        with suppress(OSError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            elif self.job:
                os.kill(self.job.pid, signal.SIGKILL)

    def end_others(self) -> NoReturn:
        """In a forked child: kill all inside but the first process, from outside, where nobody inside reaches this one. All are stopped
        before one is killed: a place that comes free would be another's to fork into."""
        with open(f"/proc/self/fdinfo/{self.pidfd}") as file:
            first = next(line.split()[1] for line in file if line.startswith("Pid:"))
        space = os.readlink(f"/proc/{first}/ns/pid")
        for number, done in ((signal.SIGSTOP, "TtZX"), (signal.SIGKILL, "ZX")):
            while left := [pid for pid in _members(space, done) if pid != int(first)]:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(0.0005)
        os._exit(0)

    def memory_killed(self) -> bool:
        """Whether the kernel killed for memory since the last question."""
        before, self.kills = self.kills, self.group.memory_kills()
        return self.kills > before

    def stats(self) -> dict[str, float]:
        held = os.statvfs(self.store)
        return {**self.group.stats(), "disk_bytes": float((held.f_blocks - held.f_bfree) * held.f_frsize)}

    def remove(self) -> None:
        """The processes are dead; their files and groups go."""
        for descriptor in (*self.status, *self.lifeline, self.pidfd):
            with suppress(OSError):
                os.close(descriptor)
        with suppress(OSError):
            kernel.unmount(self.store)
        with suppress(OSError):
            os.rmdir(self.store)
        self.group.remove()


def _members(space: str, done: str) -> Iterator[int]:
    """Processes of a process namespace, but for those in one of these states."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.readlink(f"/proc/{name}/ns/pid") == space:
                with open(f"/proc/{name}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] not in done:
                        yield int(name)


def make_box(number: int, spec: Spec, store: str, groups: Cgroups, layers: tuple[int, ...]) -> Box:
    """OSError, and nothing left, when the store cannot be made."""
    os.mkdir(store)
    box = Box(number, spec, store, groups.create(f"box-{number}", spec.limits), os.pipe(), os.pipe(), layers)
    try:
        size = f"size={spec.limits.disk_bytes},mode=755"
        kernel.mount("tmpfs", store, "tmpfs", kernel.MS_NODEV | kernel.MS_NOSUID, size)
        os.set_blocking(box.status[0], False)
        os.write(box.lifeline[1], READY)
        for inside, lowers in spec.overlays.items():
            upper = box.overlay(inside)[0]
            os.mkdir(upper)
            os.chmod(upper, os.stat(lowers[0]).st_mode & 0o7777)
    except OSError:
        box.remove()
        raise
    return box


def _options() -> str:
    """Nothing that would make an upper directory mean something only together with its own overlay."""
    own = "userxattr" if os.geteuid() or _mapped() else "redirect_dir=off,metacopy=off"
    return f"{own},index=off,xino=off"


def _mapped() -> bool:
    """Whether this process is root only in a user namespace of its own."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
