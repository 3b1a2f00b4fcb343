"""The system calls of Linux that Python 3.11 has no name for. Standard library only.

Every function raises OSError with the kernel's errno. Flags carry the names of the kernel's headers. Needs Linux 5.12.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC = 0x1, 0x2, 0x4, 0x20, 0x1000, 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 24, 36, 38
_OPENAT2 = 437
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_CAPABILITY_VERSION_3 = 0x20080522
_ATTEMPTS = 16

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def unshare(kinds: int) -> None:
    """New namespaces `kinds` for this process (its children, for process ids)."""
    _check(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()), target)


def unmount(target: str) -> None:
    """Out of sight at once; gone when nobody uses it."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), target)


def join_namespaces(descriptor: int, kinds: int) -> None:
    """The namespaces `kinds` of a process (pidfd; several at once) or of a file of /proc/PID/ns."""
    _check(_libc.setns(descriptor, kinds), "setns")


def open_beneath(name: str, flags: int, directory: int) -> int:
    """open(2) below an open directory that follows no link (ELOOP) and leaves it by no name (EXDEV)."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):  # something was renamed meanwhile
            return _system_call(_OPENAT2, directory, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
    raise BlockingIOError(errno.EAGAIN, "renamed again and again", name)


def adopt_orphans() -> None:
    """Processes below this one whose parent ends become its children."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def show() -> None:
    """Undo hide(): the files of this process in /proc are its own again."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def hide() -> None:
    """No other process of this user may trace this one, read its memory or follow the links of its /proc folder.

    Holds for forked children until they execute a program.
    """
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def drop_privileges() -> None:
    """No capability now, none after execve, and an own session keyring."""
    number = 0
    while _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:
        number += 1
    if number == 0:
        _check(-1, "prctl")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    header, nothing = _CapabilityHeader(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")
    if (call := _KEYCTL.get(os.uname().machine)) is not None:
        with suppress(OSError):  # a kernel without keyrings, or a filter that forbids them
            _system_call(call, 1, 0)


def _system_call(number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *map(_argument, arguments)), "")


def _argument(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)
    return result
