"""Stays beside one program and leaves nothing of it behind: `python keeper.py STDIN ARGV...`.

stdin of this process is a pipe that nothing is written to: its end says that the program is to end, or that whoever asked for it
was killed. The program gets the file STDIN as its own, and a session of its own. When it has ended, or is to end, everything that
it started is killed: on Linux also what left its session, since orphans come back to this process; elsewhere its process group.
Exit code: the program's, or the signal that ended it; 127 when it cannot be started. Started by its path, alone and without
site-packages, which is the fastest start: no import of this package.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIFELINE = 0
SWEEP_SECONDS = 5.0
"""For what cannot be killed at once; a process of another user never can."""


def main(stdin: str, argv: list[str]) -> None:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    keeper, child = os.getpid(), os.fork()
    if child == 0:
        _become(keeper, stdin, argv)
    code = wait(child, woken)
    sweep(child)
    if code is None or code >= 0:
        sys.exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # SIGKILL has no handler to set
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def wait(child: int, woken: int) -> int | None:
    """The child's exit code, -N for signal N; None when it is to end."""
    while True:
        if LIFELINE in select.select([LIFELINE, woken], [], [])[0]:
            return None
        os.read(woken, 4096)
        pid = -1
        while pid:  # orphans too
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                return os.waitstatus_to_exitcode(status)


def sweep(group: int) -> None:
    """Kill the group and all children, and theirs, which then come to this process, until there are none."""
    end = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < end:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _become(keeper: int, stdin: str, argv: list[str]) -> None:
    """In the child: never returns."""
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if sys.platform == "linux" and os.getppid() != keeper:  # it was killed before this was set
            os._exit(1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and an exec would not change that
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def _children() -> list[int]:
    """Direct children; empty where the system does not tell (anything but Linux)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
