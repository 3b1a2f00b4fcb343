"""The fork server's process: forks one child per job, so that a small Python run costs a fork instead of an interpreter.

Run as `python -m arcforge.sandbox.forkserver [script ...]` with a unix stream socket as descriptor 0; `sandbox.fork` is its
client. Standard library only, no threads, so that a fork is small and safe. The scripts named on the command line are
trusted and compiled once. Requests are JSON lines:

    {"id", "directory", "argv", "code", "timeout", "limits"}   run argv[0] (or `code`) as __main__ in `directory`
    {"cancel": id}                                             kill that job

Answers: {"id", "exit_code", "stdout", "stderr", "timed_out", "truncated", "seconds"} or {"id", "error"}. End of file on the
socket kills every job and ends the server; so does the end of the parent, in case someone else still holds the socket.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
import types
from contextlib import suppress
from typing import Any, NoReturn

_PR_SET_CHILD_SUBREAPER = 36
_PARENT_SECONDS = 5.0  # between looks at whether the parent is still there
_PRELOADED = (ast, json, traceback)  # what test runners import, so that children find it loaded


class _Job:
    """A running child, its two pipes (read ends) and what they said so far."""

    def __init__(self, request: dict[str, Any], pid: int, pipes: tuple[int, int]) -> None:
        self.id, self.pid, self.pipes = request["id"], pid, pipes
        self.started = time.monotonic()
        self.deadline = self.started + float(request["timeout"])
        self.cap = int(request["limits"]["output_bytes"])
        self.outputs = {pipe: bytearray() for pipe in pipes}
        self.truncated = self.timed_out = False

    def read(self, pipe: int) -> bool:
        """Take what the pipe holds, up to the cap; False when there is nothing more now."""
        try:
            chunk = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return False
        kept = self.outputs[pipe]
        room = self.cap - len(kept)
        kept += chunk[:room]
        self.truncated |= len(chunk) > room
        return bool(chunk)

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):  # the child may not have become a group yet
            os.kill(self.pid, signal.SIGKILL)


class Server:
    def __init__(self, control: socket.socket, scripts: list[str]) -> None:
        self.control = control
        self.scripts = {path: _compile_file(path) for path in scripts}
        self.jobs: dict[int, _Job] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.wake, wake = socket.socketpair()
        self.wake.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake_writer = wake
        self.selector.register(self.wake, selectors.EVENT_READ)
        _become_subreaper()

    def serve(self) -> None:
        pending, parent = b"", os.getppid()
        while os.getppid() == parent:
            for key, _ in self.selector.select(self._patience()):
                if key.fileobj is self.control:
                    chunk = self.control.recv(1 << 16)
                    if not chunk:
                        self._kill_all()
                        return
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line))
                elif key.fileobj is self.wake:
                    with suppress(BlockingIOError):
                        self.wake.recv(4096)
                elif not key.data.read(key.fd):
                    self._forget_pipe(key.fd)
            self._expire()
            self._collect()
        self._kill_all()

    def _take(self, request: dict[str, Any]) -> None:
        if "cancel" in request:
            for job in self.jobs.values():
                if job.id == request["cancel"]:
                    job.kill()
            return
        try:
            self._start(request)
        except OSError as error:
            self._answer({"id": request["id"], "error": f"cannot fork: {error}"})

    def _start(self, request: dict[str, Any]) -> None:
        os.stat(request["directory"])
        out, out_writer = os.pipe()
        err, err_writer = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            for pipe in (out, out_writer, err, err_writer):
                os.close(pipe)
            raise
        if pid == 0:
            _child(request, self.scripts.get(request["argv"][0]), out_writer, err_writer)
        os.close(out_writer)
        os.close(err_writer)
        job = self.jobs[pid] = _Job(request, pid, (out, err))
        for pipe in job.pipes:
            os.set_blocking(pipe, False)
            self.selector.register(pipe, selectors.EVENT_READ, job)

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min((job.deadline - now for job in self.jobs.values()), default=_PARENT_SECONDS))

    def _expire(self) -> None:
        now = time.monotonic()
        for job in self.jobs.values():
            if now >= job.deadline:
                job.timed_out, job.deadline = True, now + 1.0  # asked again each second until it is reaped
                job.kill()

    def _collect(self) -> None:
        for pid, job in list(self.jobs.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                continue
            del self.jobs[pid]
            job.kill()  # whatever the job left behind in its group
            for pipe in job.pipes:
                while pipe in self.selector.get_map() and job.read(pipe):
                    pass
                self._forget_pipe(pipe)
                os.close(pipe)
            self._reap_strays()
            out, err = (bytes(job.outputs[pipe]).decode(errors="replace") for pipe in job.pipes)
            self._answer({
                "id": job.id, "exit_code": os.waitstatus_to_exitcode(status), "stdout": out, "stderr": err,
                "timed_out": job.timed_out, "truncated": job.truncated, "seconds": time.monotonic() - job.started,
            })  # fmt: skip

    def _forget_pipe(self, pipe: int) -> None:
        with suppress(KeyError):
            self.selector.unregister(pipe)

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

    def _answer(self, answer: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(answer).encode() + b"\n")

    def _kill_all(self) -> None:
        for job in self.jobs.values():
            job.kill()
            with suppress(ChildProcessError):
                os.waitpid(job.pid, 0)
        self.jobs.clear()
        self._reap_strays()


def _child(request: dict[str, Any], code: types.CodeType | None, out: int, err: int) -> NoReturn:
    """The forked child: descriptors, limits, directory, then the script as __main__. Never returns."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, target)
        os.closerange(3, 4096)
        os.chdir(request["directory"])
        _limit(request["limits"])
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


def _exit_status(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _limit(limits: dict[str, int]) -> None:
    wanted = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
    )
    for kind, value in wanted:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(OSError, ValueError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(kind, (value, value))


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


def _become_subreaper() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main() -> None:
    sys.dont_write_bytecode = True
    server = Server(socket.socket(fileno=0), sys.argv[1:])
    gc.disable()
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    main()
