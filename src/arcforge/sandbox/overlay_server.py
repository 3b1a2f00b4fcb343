"""The process behind `sandbox.overlay`: makes sandboxes, runs commands in them, reads and writes their files.

Run as `python -m arcforge.sandbox.overlay_server NAME FOLDER` with a unix stream socket as descriptor 0. It has a mount namespace of
its own, so that what it mounts is seen by nobody else and is gone with it. Standard library only. Requests, each with an "id":

    {"create": NUMBER, "spec"}                       a sandbox; answered when it is up
    {"box": NUMBER, "exec": ARGV, "directory", "env", "timeout", "stdin", "limits"}
    {"box": NUMBER, OPERATION of `sandbox.inside`: ...}  on files, by a process inside, which no link can lead outside
    {"box": NUMBER, "changes": PATH INSIDE}          of one overlay, from its upper directory
    {"box": NUMBER, "snapshot": LAYER}               its upper directories copied as layers; {"drop": LAYER}: not asked for any more
    {"box": NUMBER, "stats": true} | {"box": NUMBER, "close": true}

Answers: {"id", ...} or {"id", "error"}; {"id", "errno"} for what a caller did wrong with a path.
"""

from __future__ import annotations

import base64
import errno
import gc
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NoReturn

from arcforge.sandbox import kernel
from arcforge.sandbox.box import Box, make_box
from arcforge.sandbox.cgroups import Cgroups
from arcforge.sandbox.inside import MISTAKE, OPERATIONS, inside_operation, run_inside, say
from arcforge.sandbox.jobs import Job, JobServer, close_all, pipe_pair
from arcforge.sandbox.layers import changes
from arcforge.sandbox.limits import Limits, set_rlimits
from arcforge.sandbox.spec import READY, Spec, upper_names

_ALL = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
)  # fmt: skip
_CREATE_SECONDS, _FILE_SECONDS, _COPY_SECONDS = 30.0, 30.0, 120.0
_RAW_CAP, _CHANGES_CAP = 2 << 20, 64 << 20
Act = Callable[[], NoReturn]
Done = Callable[[Job, int, str], None]
"""Called with a job that ended, its exit code, and what stopped it before it became what it should; "" for nothing."""


@dataclass
class Layer:
    """A snapshot's copy of upper directories. below: the layers it lies on. users: its handle outside, sandboxes, layers on it."""

    folder: str
    below: tuple[int, ...]
    users: int = 1


class OverlayServer(JobServer):
    def __init__(self, control: socket.socket, name: str, folder: str) -> None:
        super().__init__(control)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_SLAVE | kernel.MS_REC)
        self.groups = Cgroups(name)
        self.folder = folder
        self.boxes: dict[int, Box] = {}
        self.layers: dict[int, Layer] = {}
        self.running: dict[int, tuple[int, Done]] = {}  # job number -> where it tells its failure, what follows its end
        self.own = os.pidfd_open(os.getpid())

    def take(self, request: dict[str, Any]) -> None:
        if "create" in request:
            self._create(request)
        elif "drop" in request:
            self._release(request["drop"])
            self.answer({"id": request["id"]})
        else:
            self._use(request, self._box(request["box"]))

    def finish(self, job: Job, exit_code: int) -> None:
        failed, done = self.running.pop(job.id)
        failure = os.read(failed, 4096).decode(errors="replace")  # at its end: every writer is gone
        os.close(failed)
        done(job, exit_code, failure)

    def tick(self) -> None:
        """Sandboxes that came up in this round."""
        for box in self.boxes.values():
            if box.job and box.asked and READY in box.job.output:
                box.job.deadline = float("inf")
                asked, box.asked = box.asked, 0
                try:
                    box.came_up()
                    self.answer({"id": asked, "held": self.groups.held})
                except (OSError, ValueError) as error:
                    box.failure, box.asked = f"cannot enter the sandbox: {error}", asked
                    box.signal()

    def end(self) -> None:
        for box in self.boxes.values():
            box.signal()
        super().end()
        for box in list(self.boxes.values()):
            box.remove()
        for layer in self.layers.values():
            _unmounted(layer.folder)
        self.groups.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _box(self, number: int) -> Box:
        box = self.boxes.get(number)
        if box is None:
            raise OSError("the sandbox is gone")
        return box

    def _start(
        self, number: int, act: Act, done: Done, *, timeout: float, cap: int, stdin: bytes = b"", box: Box | None = None
    ) -> Job:
        """A child that calls `act`, with a number in the process namespace of `box`. What stops it before it executes a program
        or ends is told apart from all that a program may say."""
        pipes, writers = pipe_pair()
        failed, failing = os.pipe()
        try:
            pid = self._fork_in(box) if box else os.fork()
        except OSError:
            close_all((*pipes, *writers, failed, failing))
            raise
        if pid == 0:
            try:
                _detach(*writers, stdin)
                act()
            except BaseException as error:
                os.write(failing, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(1)
        close_all((*writers, failing))
        job = Job(number, pid, pipes, timeout, cap)
        self.running[number] = (failed, done)
        self.add(job)
        return job

    def _fork_in(self, box: Box) -> int:
        """fork() whose child has a number in the sandbox's process namespace, and this process as its parent all the same."""
        kernel.join_namespaces(box.pidfd, kernel.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                kernel.join_namespaces(self.own, kernel.CLONE_NEWPID)
        return pid

    def _create(self, request: dict[str, Any]) -> None:
        number, given = request["create"], dict(request["spec"])
        limits, layers = Limits(**given.pop("limits")), given.pop("layers")
        for layer, only in layers:
            folder = self._layer(layer).folder
            for inside, name in upper_names(given["overlays"]).items():
                if only is None or inside in only:
                    lowers = given["overlays"][inside]
                    given["overlays"] = {**given["overlays"], inside: [os.path.join(folder, name), *lowers]}
        store = os.path.join(self.folder, f"box-{number}")
        box = make_box(number, Spec(**given, limits=limits), store, self.groups, tuple(layer for layer, _ in layers))
        self._hold(box.layers)
        self.boxes[number], box.asked = box, request["id"]
        try:
            box.job = self._start(
                request["id"], box.become, partial(self._gone, box), timeout=_CREATE_SECONDS, cap=4096
            )
        except OSError:
            self._forget(box)
            raise

    def _gone(self, box: Box, job: Job, exit_code: int, failure: str) -> None:
        """Its first process ended: asked to, or by itself. The kernel ends all that were inside with it."""
        self._forget(box)
        if box.asked:
            said = box.failure or failure or job.texts()[1].strip()[-300:] or "no reason was told"
            why = "did not come up in time" if job.timed_out else said
            self.answer({"id": box.asked, "error": f"cannot make a sandbox: {why}"})
        if box.closer:
            self.answer({"id": box.closer})

    def _forget(self, box: Box) -> None:
        self.boxes.pop(box.number, None)
        box.remove()
        for layer in box.layers:
            self._release(layer)

    def _use(self, request: dict[str, Any], box: Box) -> None:
        if "close" in request:
            box.closer = request["id"]
            box.signal()
        elif "stats" in request:
            self.answer({"id": request["id"], **box.stats()})
        elif "changes" in request:
            self._changes(request, box)
        elif "snapshot" in request:
            self._snapshot(request, box)
        elif "exec" in request:
            self._exec(request, box)
        elif "end" in request:
            self._end(request, box)
        else:
            self._files(request, box)

    def _exec(self, request: dict[str, Any], box: Box) -> None:
        limits, held = Limits(**request["limits"]), self.groups.held

        def act() -> NoReturn:
            box.enter(_ALL)
            set_rlimits(limits, address_space="memory" not in held, processes="pids" not in held)
            kernel.drop_privileges()
            run_inside(request["exec"], request["directory"], {**box.spec.environment(), **request["env"]})

        def done(job: Job, exit_code: int, failure: str) -> None:
            if failure:
                self.answer({"id": job.id, "error": f"cannot enter the sandbox: {failure}"})
                return
            killed = exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL) and box.memory_killed()
            self.answer({**job.answer(exit_code), "out_of_memory": killed})

        self._start(
            request["id"], act, done, timeout=request["timeout"], cap=limits.output_bytes,
            stdin=request["stdin"].encode(), box=box,
        )  # fmt: skip

    def _files(self, request: dict[str, Any], box: Box) -> None:
        def act() -> NoReturn:
            box.enter(_ALL)
            kernel.drop_privileges()
            inside_operation(request, box.spec.workdir)

        def done(job: Job, exit_code: int, failure: str) -> None:
            if exit_code == 0:
                self.answer({"id": job.id, "raw": base64.b64encode(job.output).decode()})
            elif exit_code == MISTAKE and not failure:
                number, _, text = job.texts()[1].partition(" ")
                self.answer({"id": job.id, "errno": int(number), "text": text})
            elif exit_code < 0 and not job.timed_out:
                self.answer({"id": job.id, "errno": errno.EINTR, "text": "killed by a process inside"})
            else:
                why = failure or ("killed after its time" if job.timed_out else f"died with {exit_code}")
                self.answer({"id": job.id, "error": f"{_operation(request)} in the sandbox: {why}"})

        stdin = base64.b64decode(request.get("raw", ""))
        self._start(request["id"], act, done, timeout=_FILE_SECONDS, cap=_RAW_CAP, stdin=stdin, box=box)

    def _end(self, request: dict[str, Any], box: Box) -> None:
        def done(job: Job, exit_code: int, failure: str) -> None:
            why = failure or ("not in time" if job.timed_out else f"a process for it died with {exit_code}")
            self.answer({"id": job.id, **({"error": f"cannot end its processes: {why}"} if exit_code else {})})

        self._start(request["id"], box.end_others, done, timeout=_FILE_SECONDS, cap=4096)

    def _changes(self, request: dict[str, Any], box: Box) -> None:
        """In a child: a tree that was made to be too large or too deep is its end alone."""
        upper, lowers = box.overlay(request["changes"])

        def act() -> NoReturn:
            say(json.dumps([asdict(change) for change in changes(upper, lowers)]).encode())
            os._exit(0)

        def done(job: Job, exit_code: int, failure: str) -> None:
            if exit_code or job.truncated:
                why = failure or ("too many" if job.truncated else f"a process for them died with {exit_code}")
                self.answer({"id": job.id, "error": f"cannot tell the changes: {why[:300]}"})
            else:
                self.answer({"id": job.id, "changes": json.loads(job.output)})

        self._start(request["id"], act, done, timeout=_COPY_SECONDS, cap=_CHANGES_CAP)

    def _snapshot(self, request: dict[str, Any], box: Box) -> None:
        number, target = request["snapshot"], os.path.join(self.folder, f"layer-{request['snapshot']}")

        def act() -> NoReturn:
            os.execvp("cp", ["cp", "-a", "--", *box.uppers(), target])

        def done(job: Job, exit_code: int, failure: str) -> None:
            if exit_code:
                self._release(number)
                self.answer({"id": job.id, "error": f"cannot copy the changes: {failure or job.texts()[1][:300]}"})
            else:
                self.answer({"id": job.id})

        os.mkdir(target)
        kernel.mount("tmpfs", target, "tmpfs", 0, f"size={box.spec.limits.disk_bytes},mode=755")
        self._hold(box.layers)
        self.layers[number] = Layer(target, box.layers)
        try:
            self._start(request["id"], act, done, timeout=_COPY_SECONDS, cap=4096)
        except OSError:
            self._release(number)
            raise

    def _layer(self, number: int) -> Layer:
        layer = self.layers.get(number)
        if layer is None:
            raise OSError("the snapshot is gone")
        return layer

    def _hold(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.layers[number].users += 1

    def _release(self, number: int) -> None:
        """One user less; without any its files are gone, and what it lies on is released."""
        layer = self._layer(number)
        layer.users -= 1
        if not layer.users:
            del self.layers[number]
            _unmounted(layer.folder)
            for below in layer.below:
                self._release(below)


def _operation(request: dict[str, Any]) -> str:
    return next(name for name in OPERATIONS if name in request)


def _unmounted(folder: str) -> None:
    with suppress(OSError):
        kernel.unmount(folder)
        os.rmdir(folder)


def _detach(out: int, err: int, stdin: bytes) -> None:
    """A child's descriptors and signals; nothing of the server's stays open but what closes by itself at execve."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    source = os.memfd_create("stdin") if stdin else os.open(os.devnull, os.O_RDONLY)
    while stdin:
        stdin = stdin[os.write(source, stdin) :]
    os.lseek(source, 0, os.SEEK_SET)
    for descriptor, target in ((source, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, target)


def main() -> None:
    sys.dont_write_bytecode = True
    kernel.hide()
    server = OverlayServer(socket.socket(fileno=0), sys.argv[1], sys.argv[2])
    gc.disable()
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    main()
