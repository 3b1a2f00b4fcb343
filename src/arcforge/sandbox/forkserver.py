"""The fork server's process: forks one child per job, so that a small Python run costs a fork instead of an interpreter.

Run as `python -m arcforge.sandbox.forkserver GROUND [script ...]` with a unix stream socket as descriptor 0; `sandbox.fork` is its
client. Standard library only. The scripts named on the command line are trusted and compiled once. As process 1 of a
namespace (bubblewrap started it) it gives every job a view in which the folder GROUND holds nothing but the job's own
directory, and no capability. A request is

    {"id", "directory", "argv", "code", "timeout", "limits"}   run argv[0] (or `code`) as __main__ in `directory`

and an answer {"id", "exit_code", "stdout", "stderr", "timed_out", "truncated", "seconds"} or {"id", "error"}. The end of the
parent ends the server too, in case someone else still holds the socket.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import signal
import socket
import sys
import traceback
import types
from contextlib import suppress
from typing import Any, NoReturn

from arcforge.sandbox import kernel
from arcforge.sandbox.jobs import Job, JobServer, close_all, pipe_pair
from arcforge.sandbox.limits import Limits, set_rlimits

_PRELOADED = (ast, json, traceback)  # what test runners import, so that children find it loaded


class Server(JobServer):
    def __init__(self, control: socket.socket, ground: str, scripts: list[str]) -> None:
        super().__init__(control)
        self.ground = ground if os.getpid() == 1 else ""
        self.scripts = {path: _compile_file(path) for path in scripts}
        if sys.platform == "linux":
            kernel.adopt_orphans()
            kernel.hide()

    def take(self, request: dict[str, Any]) -> None:
        os.stat(request["directory"])
        pipes, writers = pipe_pair()
        try:
            pid = os.fork()
        except OSError:
            close_all((*pipes, *writers))
            raise
        limits = Limits(**request["limits"])
        if pid == 0:
            _child(request, self.scripts.get(request["argv"][0]), limits, self.ground, *writers)
        close_all(writers)
        self.add(Job(request["id"], pid, pipes, float(request["timeout"]), limits.output_bytes))

    def settle(self, job: Job) -> None:
        job.kill()  # whatever the job left behind in its group

    def finish(self, job: Job, exit_code: int) -> None:
        self._reap_strays()
        super().finish(job, exit_code)

    def end(self) -> None:
        super().end()
        self._reap_strays()

    def _reap_strays(self) -> None:
        """Kill orphans that left their job's group: on Linux they become children of this process (subreaper)."""
        for _ in range(100):
            strays = [pid for pid in _children() if pid not in self.jobs]
            if not strays:
                return
            for pid in strays:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _child(
    request: dict[str, Any], code: types.CodeType | None, limits: Limits, ground: str, out: int, err: int
) -> NoReturn:
    """The forked child: descriptors, limits, directory, then the script as __main__. Never returns."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform == "linux":
            kernel.show()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, target)
        os.closerange(3, 4096)
        if ground:
            _confine(request["directory"], ground)
        os.chdir(request["directory"])
        set_rlimits(limits)
        sys.argv = list(request["argv"])
        sys.path.insert(0, request["directory"])
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        if code is None:
            code = compile(request["code"], "<code>", "exec") if request["code"] else _compile_file(sys.argv[0])
        exec(code, main.__dict__)
        status = 0
    except SystemExit as end:
        status = _exit_status(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def _confine(directory: str, ground: str) -> None:
    """Only `directory` is left in `ground`, for this process and its children, and no capability to change that."""
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    if directory != ground:
        own = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        kernel.mount("tmpfs", ground, "tmpfs", kernel.MS_NODEV | kernel.MS_NOSUID, "size=64k,mode=755")
        os.makedirs(directory)
        kernel.mount(f"/proc/self/fd/{own}", directory, "", kernel.MS_BIND)
        kernel.mount("none", ground, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)
        os.close(own)
    kernel.drop_privileges()


def _exit_status(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _compile_file(path: str) -> types.CodeType:
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec")


def _children() -> list[int]:
    """Direct children of this process; empty where the system does not tell (anything but Linux)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def main() -> None:
    sys.dont_write_bytecode = True
    server = Server(socket.socket(fileno=0), sys.argv[1], sys.argv[2:])
    gc.disable()
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    main()
