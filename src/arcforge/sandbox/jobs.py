"""A server process of jobs: children that it forks, watches, holds to their time and answers for.

Standard library only, one thread, so that a fork is small and safe. Requests and answers are JSON lines over a unix stream
socket; {"cancel": id} kills a job. End of file on the socket ends the server and all its jobs.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from typing import Any

_PARENT_SECONDS = 5.0  # between looks at whether the parent is still there
_CHUNK = 1 << 16
_LAST_CHUNKS = 16  # a full pipe; a daemon that the job left may write on forever


class Job:
    """A running child, its two pipes (read ends) and what they said so far. cap: bytes kept of each."""

    def __init__(self, number: int, pid: int, pipes: tuple[int, int], timeout: float, cap: int) -> None:
        self.id, self.pid, self.pipes, self.cap = number, pid, pipes, cap
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.outputs = {pipe: bytearray() for pipe in pipes}
        self.truncated = self.timed_out = False

    def read(self, pipe: int) -> bool:
        """Take what the pipe holds, up to the cap; False when there is nothing more now."""
        try:
            chunk = os.read(pipe, _CHUNK)
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

    @property
    def output(self) -> bytes:
        """Of stdout."""
        return bytes(self.outputs[self.pipes[0]])

    def texts(self) -> tuple[str, str]:
        out, err = (bytes(self.outputs[pipe]).decode(errors="replace") for pipe in self.pipes)
        return out, err

    def answer(self, exit_code: int) -> dict[str, Any]:
        out, err = self.texts()
        return {
            "id": self.id, "exit_code": exit_code, "stdout": out, "stderr": err, "timed_out": self.timed_out,
            "truncated": self.truncated, "seconds": time.monotonic() - self.started,
        }  # fmt: skip


class JobServer:
    """The loop. A subclass takes requests (`take`) and answers for its jobs (`finish`)."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.jobs: dict[int, Job] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self._wake, self._wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        self.selector.register(self._wake, selectors.EVENT_READ)

    def take(self, request: dict[str, Any]) -> None:
        """Start what is asked. An OSError is answered as {"id", "error"}."""
        raise NotImplementedError

    def finish(self, job: Job, exit_code: int) -> None:
        self.answer(job.answer(exit_code))

    def settle(self, job: Job) -> None:
        """A job has ended and is about to be reaped: its process id is still its own."""

    def tick(self) -> None:
        """Called after every round."""

    def end(self) -> None:
        """Leave nothing behind."""
        for job in self.jobs.values():
            job.kill()
            with suppress(ChildProcessError):
                os.waitpid(job.pid, 0)
        self.jobs.clear()

    def serve(self) -> None:
        pending, parent = b"", os.getppid()
        try:
            while os.getppid() == parent:
                for key, _ in self.selector.select(self._patience()):
                    if key.fileobj is self.control:
                        chunk = self.control.recv(_CHUNK)
                        if not chunk:
                            return
                        *lines, pending = (pending + chunk).split(b"\n")
                        for line in lines:
                            self._request(json.loads(line))
                    elif key.fileobj is self._wake:
                        with suppress(BlockingIOError):
                            self._wake.recv(4096)
                    elif not key.data.read(key.fd):
                        self._unwatch(key.fd)
                self._expire()
                self._reap()
                self.tick()
        finally:
            self.end()

    def add(self, job: Job) -> None:
        """Watch a child that was forked just now."""
        self.jobs[job.pid] = job
        for pipe in job.pipes:
            os.set_blocking(pipe, False)
            self.selector.register(pipe, selectors.EVENT_READ, job)

    def _unwatch(self, descriptor: int) -> None:
        with suppress(KeyError):
            self.selector.unregister(descriptor)

    def answer(self, answer: dict[str, Any]) -> None:
        self.control.sendall(json.dumps(answer).encode() + b"\n")

    def _request(self, request: dict[str, Any]) -> None:
        if "cancel" in request:
            for job in self.jobs.values():
                if job.id == request["cancel"]:
                    job.kill()
            return
        try:
            self.take(request)
        except OSError as error:
            self.answer({"id": request["id"], "error": str(error)})

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [job.deadline - now for job in self.jobs.values()]
        return max(0.0, min([_PARENT_SECONDS, *waits]))

    def _expire(self) -> None:
        now = time.monotonic()
        for job in self.jobs.values():
            if now >= job.deadline:
                job.timed_out, job.deadline = True, now + 1.0  # asked again each second until it is reaped
                job.kill()

    def _reap(self) -> None:
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if not seen:
                return
            job = self.jobs.pop(seen.si_pid, None)
            if job:
                self.settle(job)
            _, status = os.waitpid(seen.si_pid, 0)
            if not job:
                continue
            for pipe in job.pipes:
                for _ in range(_LAST_CHUNKS):
                    if pipe not in self.selector.get_map() or not job.read(pipe):
                        break
                self._unwatch(pipe)
                os.close(pipe)
            self.finish(job, os.waitstatus_to_exitcode(status))


def pipe_pair() -> tuple[tuple[int, int], tuple[int, int]]:
    """Two pipes, for stdout and stderr: (read ends, write ends)."""
    out, out_writer = os.pipe()
    err, err_writer = os.pipe()
    return (out, err), (out_writer, err_writer)


def close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
