"""The process behind `sandbox.overlay`: makes sandboxes, runs commands in them, reads and writes their files.

Run as `python -m arcforge.sandbox.overlay_server NAME FOLDER` with a unix stream socket as descriptor 0. It has a mount namespace of
its own, so that what it mounts is seen by nobody else and is gone with it. Standard library only. Requests, each with an "id":

    {"create": NUMBER, "spec"}                       a sandbox; answered when it is up
    {"box": NUMBER, "exec": ARGV, "directory", "env", "timeout", "stdin", "limits"}
    {"box": NUMBER, "read" | "write" | "list" | "end": ...}  done by a process inside, which no link can lead outside
    {"box": NUMBER, "changes": PATH INSIDE}          of one overlay, from its upper directory
    {"box": NUMBER, "snapshot": LAYER}               its upper directories copied as layers; {"drop": LAYER} forgets them
    {"box": NUMBER, "stats": true} | {"box": NUMBER, "close": true}

Answers: {"id", ...} or {"id", "error"}; {"id", "errno"} for what a caller did wrong with a path.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NoReturn

from arcforge.sandbox import kernel
from arcforge.sandbox.box import Box, make_box
from arcforge.sandbox.cgroups import Cgroups
from arcforge.sandbox.inside import inside_operation, say
from arcforge.sandbox.jobs import Job, JobServer, close_all, pipe_pair
from arcforge.sandbox.layers import changes
from arcforge.sandbox.limits import Limits, set_rlimits
from arcforge.sandbox.spec import Spec

_ALL = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
)  # fmt: skip
_CREATE_SECONDS, _FILE_SECONDS, _COPY_SECONDS = 30.0, 30.0, 120.0
_RAW_CAP, _CHANGES_CAP = 2 << 20, 64 << 20
MISTAKE = 100
"""Exit code of an operation on files that the caller asked for in vain; its standard error holds errno and text."""


class OverlayServer(JobServer):
    def __init__(self, control: socket.socket, name: str, folder: str) -> None:
        super().__init__(control)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_SLAVE | kernel.MS_REC)
        self.groups = Cgroups(name)
        self.folder = folder
        self.boxes: dict[int, Box] = {}
        self.layers: dict[int, str] = {}
        self.waiting: dict[int, tuple[str, Box | None]] = {}  # job number -> what it does, where
        self.copying: dict[int, int] = {}  # job number -> the layer that it fills
        self.own = os.pidfd_open(os.getpid())

    def take(self, request: dict[str, Any]) -> None:
        if "create" in request:
            self._create(request)
        elif "drop" in request:
            self._drop_layer(request["drop"])
            self.answer({"id": request["id"]})
        else:
            self._use(request, self._box(request["box"]))

    def finish(self, job: Job, exit_code: int) -> None:
        what, box = self.waiting.pop(job.id)
        if what == "create" and box:
            self._gone(box, job)
        elif what == "exec" and box:
            killed = exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL) and box.memory_killed()
            self.answer({**job.answer(exit_code), "out_of_memory": killed})
        elif what == "snapshot":
            failed = {"error": f"cannot copy the changes: {job.texts()[1][:300]}"} if exit_code else {}
            layer = self.copying.pop(job.id)
            if failed:
                self._drop_layer(layer)
            self.answer({"id": job.id, **failed})
        elif what == "changes":
            told = bytes(job.outputs[job.pipes[0]])
            if exit_code or job.truncated:
                self.answer({"id": job.id, "error": f"cannot tell the changes: {job.texts()[1][:300] or 'too many'}"})
            else:
                self.answer({"id": job.id, "changes": json.loads(told)})
        elif exit_code == 0:
            self.answer({"id": job.id, "raw": base64.b64encode(bytes(job.outputs[job.pipes[0]])).decode()})
        elif exit_code == MISTAKE:
            number, _, text = job.texts()[1].partition(" ")
            self.answer({"id": job.id, "errno": int(number), "text": text})
        else:
            self.answer({"id": job.id, "error": f"a process for files died with {exit_code}: {job.texts()[1][:300]}"})

    def end(self) -> None:
        for box in self.boxes.values():
            box.signal()
        super().end()
        for box in list(self.boxes.values()):
            box.remove()
        for layer in list(self.layers):
            self._drop_layer(layer)
        self.groups.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _box(self, number: int) -> Box:
        box = self.boxes.get(number)
        if box is None:
            raise OSError("the sandbox is gone")
        return box

    def _layer(self, number: int) -> str:
        folder = self.layers.get(number)
        if folder is None:
            raise OSError("the snapshot is gone")
        return folder

    def _create(self, request: dict[str, Any]) -> None:
        number, given = request["create"], dict(request["spec"])
        limits = Limits(**given.pop("limits"))
        for layer, only in given.pop("layers"):
            held = self._layer(layer)
            given["overlays"] = {
                inside: lowers if only is not None and inside not in only else [os.path.join(held, name), *lowers]
                for inside, lowers, name in _numbered(given["overlays"])
            }
        spec = Spec(**given, limits=limits)
        box = make_box(number, spec, os.path.join(self.folder, f"box-{number}"), self.groups)
        self.boxes[number] = box
        pipes, writers = pipe_pair()
        try:
            pid = os.fork()
        except OSError:
            close_all((*pipes, *writers))
            self._forget(box)
            raise
        if pid == 0:
            self._detach(*writers)
            box.become()
        close_all(writers)
        box.monitor, box.asked = pid, request["id"]
        self.waiting[request["id"]] = ("create", box)
        job = Job(request["id"], pid, pipes, _CREATE_SECONDS, 4096)
        self.add(job)
        box.job = job

    def tick(self) -> None:
        """Sandboxes that came up in this round."""
        for box in self.boxes.values():
            if box.job and box.asked and b"ready" in box.job.outputs[box.job.pipes[0]]:
                box.job.deadline = float("inf")
                asked, box.asked = box.asked, 0
                try:
                    box.came_up()
                    self.answer({"id": asked, "held": self.groups.held})
                except (OSError, ValueError) as error:
                    box.failure = f"cannot enter the sandbox: {error}"
                    box.asked = asked
                    os.kill(box.monitor, signal.SIGKILL)

    def _gone(self, box: Box, job: Job) -> None:
        """Its process ended: asked to, or by itself."""
        if box.asked:
            said = box.failure or job.texts()[1].strip()[-300:] or "no reason was told"
            why = "did not come up in time" if job.timed_out else said
            self.answer({"id": box.asked, "error": f"cannot make a sandbox: {why}"})
        if box.closer:
            self.answer({"id": box.closer})
        for pid, other in self.jobs.items():
            if self.waiting.get(other.id, ("", None))[1] is box:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._forget(box)

    def _forget(self, box: Box) -> None:
        self.boxes.pop(box.number, None)
        box.remove()

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
        else:
            self._files(request, box)

    def _exec(self, request: dict[str, Any], box: Box) -> None:
        limits = Limits(**request["limits"])

        def command() -> NoReturn:
            box.enter(_ALL)
            os.chdir(request["directory"])
            set_rlimits(
                limits, address_space="memory" not in self.groups.held, processes="pids" not in self.groups.held
            )
            kernel.drop_privileges()
            environment = {**box.spec.environment(), **request["env"]}
            try:
                os.execvpe(request["exec"][0], request["exec"], environment)
            except OSError as error:
                os.write(2, f"{request['exec'][0]}: {error.strerror}\n".encode())
                os._exit(127 if isinstance(error, FileNotFoundError) else 126)

        self._fork("exec", request, box, command, request["timeout"], limits.output_bytes, request["stdin"].encode())

    def _files(self, request: dict[str, Any], box: Box) -> None:
        def operation() -> NoReturn:
            box.enter(_ALL)
            os.chdir(box.spec.workdir)
            kernel.drop_privileges()
            inside_operation(request, MISTAKE)

        self._fork("files", request, box, operation, _FILE_SECONDS, _RAW_CAP, base64.b64decode(request.get("raw", "")))

    def _fork(
        self, what: str, request: dict[str, Any], box: Box, act: Any, timeout: float, cap: int, stdin: bytes
    ) -> None:
        """A child in the sandbox's process namespace that calls `act`."""
        pipes, writers = pipe_pair()
        try:
            pid = self._fork_in(box)
        except OSError:
            close_all((*pipes, *writers))
            raise
        if pid == 0:
            try:
                self._detach(*writers, stdin=stdin)
                act()
            except BaseException as error:
                os.write(2, f"cannot enter the sandbox: {error}\n".encode())
            finally:
                os._exit(125)
        close_all(writers)
        self.waiting[request["id"]] = (what, box)
        self.add(Job(request["id"], pid, pipes, float(timeout), cap))

    def _changes(self, request: dict[str, Any], box: Box) -> None:
        """In a child: a tree that was made to be too large or too deep is its end alone."""
        upper, lowers = box.overlay(request["changes"])
        pipes, writers = pipe_pair()
        pid = os.fork()
        if pid == 0:
            try:
                self._detach(*writers)
                say(json.dumps([asdict(change) for change in changes(upper, lowers)]).encode())
                os._exit(0)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(1)
        close_all(writers)
        self.waiting[request["id"]] = ("changes", None)
        self.add(Job(request["id"], pid, pipes, _COPY_SECONDS, _CHANGES_CAP))

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

    def _snapshot(self, request: dict[str, Any], box: Box) -> None:
        target = os.path.join(self.folder, f"layer-{request['snapshot']}")
        os.mkdir(target)
        kernel.mount("tmpfs", target, "tmpfs", 0, f"size={box.spec.limits.disk_bytes},mode=755")
        self.layers[request["snapshot"]] = target
        pipes, writers = pipe_pair()
        pid = os.fork()
        if pid == 0:
            try:
                self._detach(*writers)
                os.execvp("cp", ["cp", "-a", "--", *box.uppers(), target])
            finally:
                os._exit(127)
        close_all(writers)
        self.waiting[request["id"]], self.copying[request["id"]] = ("snapshot", None), request["snapshot"]
        self.add(Job(request["id"], pid, pipes, _COPY_SECONDS, 4096))

    def _drop_layer(self, number: int) -> None:
        if (folder := self.layers.pop(number, None)) is not None:
            kernel.unmount(folder)
            with suppress(OSError):
                os.rmdir(folder)

    @staticmethod
    def _detach(out: int, err: int, stdin: bytes = b"") -> None:
        """A child's descriptors and signals; nothing of the server's stays open but what closes by itself at execve."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        source = os.memfd_create("stdin") if stdin else os.open(os.devnull, os.O_RDONLY)
        if stdin:
            os.write(source, stdin)
            os.lseek(source, 0, os.SEEK_SET)
        for descriptor, target in ((source, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, target)


def _numbered(overlays: dict[str, list[str]]) -> list[tuple[str, list[str], str]]:
    """(path inside, lowers, name of its folder): the names are the same for every sandbox with these overlays."""
    return [(inside, lowers, f"upper-{place}") for place, (inside, lowers) in enumerate(sorted(overlays.items()))]


def main() -> None:
    sys.dont_write_bytecode = True
    kernel.hide()
    server = OverlayServer(socket.socket(fileno=0), sys.argv[1], sys.argv[2])
    gc.disable()
    gc.freeze()
    server.serve()


if __name__ == "__main__":
    main()
