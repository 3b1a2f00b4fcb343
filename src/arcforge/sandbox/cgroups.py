"""Limits of whole process trees by Linux control groups, version 1 or 2: whichever can be used here is found by trying.

Groups are made below this process's own, so that its limits hold for them too. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from arcforge.sandbox.limits import Limits

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
_PERIOD = 100_000  # microseconds over which `cpus` is counted
_EXTRA_PROCESSES = 4  # bubblewrap's own and the sandbox's first one
_GONE_SECONDS = 2.0


@dataclass(frozen=True)
class Place:
    """Where a controller's own group of this process is. version 2 has one place for all controllers."""

    path: Path
    version: int


def places(mounts: str, membership: str) -> dict[str, Place]:
    """Controller -> place, from the texts of /proc/self/mountinfo and /proc/self/cgroup; "" is version 2's tree."""
    own = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    found: dict[str, Place] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        for name in {""} if kind == "cgroup2" else set(options.split(",")) & set(CONTROLLERS):
            path = own.get(name)
            if path is not None:
                below = path if root == "/" else path.removeprefix(root)
                found.setdefault(name, Place(Path(point + below.rstrip("/")), 2 if kind == "cgroup2" else 1))
    return found


@dataclass
class Group:
    """One sandbox's groups: controller -> folder. Version 2 has the same folder for all of them."""

    folders: dict[str, Path]
    version: dict[str, int]
    limits: Limits = field(default_factory=Limits)

    def join(self) -> None:
        """Move this process in."""
        for folder in set(self.folders.values()):
            _write(folder / "cgroup.procs", "0")

    def stats(self) -> dict[str, float]:
        """cpu_seconds, memory_bytes, memory_peak_bytes, processes, memory_kills, as far as there are controllers for them."""
        names = {
            "cpu_seconds": ("cpuacct", "cpuacct.usage")
            if self.version.get("cpuacct") == 1
            else ("cpu", "cpu.stat usage_usec"),
            "memory_bytes": ("memory", self._named("memory.usage_in_bytes", "memory.current")),
            "memory_peak_bytes": ("memory", self._named("memory.max_usage_in_bytes", "memory.peak")),
            "memory_kills": ("memory", self._named("memory.oom_control oom_kill", "memory.events oom_kill")),
            "processes": ("pids", "pids.current"),
        }
        found = {}
        for name, (controller, file) in names.items():
            if controller in self.folders and (value := _number(self.folders[controller], file)) is not None:
                found[name] = value
        if "cpu_seconds" in found:
            found["cpu_seconds"] /= 1e9 if self.version.get("cpuacct") == 1 else 1e6
        return found

    def memory_kills(self) -> int:
        return int(self.stats().get("memory_kills", 0))

    def remove(self) -> None:
        """The processes must be dead; the kernel may take a moment to notice."""
        for folder in set(self.folders.values()):
            _remove(folder)

    def hold(self) -> None:
        """Write the limits down."""
        limits = self.limits
        settings = [
            ("memory", "memory.limit_in_bytes", "memory.max", str(limits.memory_bytes)),
            ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", None),
            ("pids", "pids.max", "pids.max", str(limits.processes + _EXTRA_PROCESSES)),
        ]
        if limits.cpus:
            quota = max(1000, int(limits.cpus * _PERIOD))
            settings.append(("cpu", "cpu.cfs_quota_us", "cpu.max", str(quota)))
        for controller, old, new, value in settings:
            if controller not in self.folders:
                continue
            first = self.version[controller] == 1
            file = self.folders[controller] / (old if first else new)
            if value is None:  # memory and swap together in version 1, swap alone in version 2
                value = str(limits.memory_bytes) if first else "0"
                if not file.exists():  # no accounting of swap
                    continue
            _write(file, f"{value} {_PERIOD}" if file.name == "cpu.max" else value)

    def _named(self, old: str, new: str) -> str:
        return old if self.version.get("memory") == 1 else new


class Cgroups:
    """Groups below one of our own, called `name`: "word-...". held: the controllers that can be used here."""

    def __init__(self, name: str) -> None:
        self._bases: dict[str, Path] = {}
        self._version: dict[str, int] = {}
        self._locks: list[int] = []
        with suppress(OSError, ValueError):
            found = places(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
            for controller in CONTROLLERS:
                if place := found.get(controller):
                    self._try_old(controller, place.path / name)
            if "" in found:
                self._try_new(found[""].path, name)

    @property
    def held(self) -> list[str]:
        return sorted(self._bases)

    def create(self, name: str, limits: Limits) -> Group:
        """A new group with the limits written down. OSError where the kernel says no."""
        group = Group({c: base / name for c, base in self._bases.items()}, self._version, limits)
        for folder in set(group.folders.values()):
            folder.mkdir(exist_ok=True)
        group.hold()
        return group

    def remove(self) -> None:
        for base in set(self._bases.values()):
            remove_tree(base)
        for lock in self._locks:
            os.close(lock)
        self._locks = []

    def _try_old(self, controller: str, base: Path) -> None:
        with suppress(OSError):
            self._claim(base)
            self._keep_if_usable({controller: base}, 1)

    def _try_new(self, own: Path, name: str) -> None:
        """In our own group, which works for the root of the tree, or beside it, where the group above is delegated to us."""
        wanted = [c for c in ("memory", "pids", "cpu") if c not in self._bases]
        for above in (own, own.parent):
            base = above / name
            with suppress(OSError):
                self._claim(base)
                for controller in wanted:
                    for folder in (above, base):
                        with suppress(OSError):
                            _write(folder / "cgroup.subtree_control", f"+{controller}")
                enabled = (base / "cgroup.subtree_control").read_text().split()
                if self._keep_if_usable({c: base for c in wanted if c in enabled}, 2):
                    return

    def _claim(self, base: Path) -> None:
        """Make the folder and lock it for as long as this process lives: process ids would say nothing to one in another namespace
        of them. What is beside it, named alike and locked by nobody, is of a process that was killed, and goes."""
        while True:
            base.mkdir(exist_ok=True)
            lock = _locked(base)
            if lock is not None:
                break
        self._locks.append(lock)
        for other in base.parent.glob(f"{base.name.partition('-')[0]}-*"):
            if other != base and (held := _locked(other, wait=False)) is not None:
                remove_tree(other)
                os.close(held)

    def _keep_if_usable(self, bases: dict[str, Path], version: int) -> bool:
        """Whether a limit can be set and a process of ours can be moved in; the folders are removed when not."""
        group = Group({c: base / "probe" for c, base in bases.items()}, dict.fromkeys(bases, version))
        usable = bool(bases)
        try:
            for folder in set(group.folders.values()):
                folder.mkdir()
            group.hold()
            usable = usable and _joined(group)
        except OSError:
            usable = False
        group.remove()
        if usable:
            self._bases.update(bases)
            self._version.update(dict.fromkeys(bases, version))
        else:
            for base in set(bases.values()):
                _remove(base)
        return usable


def _locked(folder: Path, wait: bool = True) -> int | None:
    """A descriptor that holds the folder's lock; None when it is gone, or somebody else's. OSError where folders cannot be locked."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists() and folder.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def remove_tree(base: Path) -> None:
    """A group and those in it, once no process is left in them."""
    if not base.is_dir():
        return
    for child in base.iterdir():
        if child.is_dir():
            remove_tree(child)
    _remove(base)


def _joined(group: Group) -> bool:
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            group.join()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _write(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _number(folder: Path, file: str) -> float | None:
    """The number in a file, or after a word in it ("memory.events oom_kill"). None when it is not there."""
    name, _, key = file.partition(" ")
    with suppress(OSError, ValueError):
        text = (folder / name).read_text()
        if not key:
            return float(text)
        for line in text.splitlines():
            if line.split()[0] == key:
                return float(line.split()[1])
    return None


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)
