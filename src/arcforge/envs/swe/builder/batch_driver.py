"""Runs pytest many times in one checkout, each time in a fork of a process that has imported it. Standard library and pytest only.

Copied into a folder of the checkout with `jobs.json`: {"private": whether /tmp is the checkout's own, "apply": the command that applies a
patch, "options": pytest's options, "jobs": [{"patches": [file in the folder, ...], "tests": [file, ...], "seconds": at most}]}. Leaves a
line a job in `results.jsonl`: {"exit_code", "stdout", "stderr", "timed_out", "truncated", "seconds", "unfit": whether a patch does not
fit}. A patch is taken back after its run; what a run left behind is removed. Where it changed or removed a file of the tree, or the
results grow large, the driver ends: the jobs that are left want a new checkout.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT, DRIVER = os.getcwd(), os.getpid()
KEPT, KEPT_OF_ALL = 1 << 20, 8 << 20  # bytes of a run's output, and of those of all runs together
PART_OF_PYTEST = 3  # exit code: pytest imports the tree itself (packaging, say), so nothing of it may be loaded before a patch is there
PR_SET_CHILD_SUBREAPER = 36


def preload():
    """What pytest imports when it starts; plug-ins of others are left to the runs, which want to rewrite them."""
    from _pytest.config import default_plugins  # an own tuple of pytest's since version 3

    for name in ("pytest", *(f"_pytest.{plugin}" for plugin in default_plugins)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run(job, asked, number):
    """One job in a fork; its result."""
    started = time.monotonic()
    scratch = tempfile.mkdtemp(prefix="t")
    os.mkdir(os.path.join(scratch, "tmp"))
    outputs = [os.path.join(scratch, name) for name in ("stdout", "stderr")]
    kept = {}
    try:
        if problem := patched(job["patches"], kept, number, asked["apply"]):
            return result(started, -1, stderr=problem, unfit=True)
        pid = os.fork()
        if pid == 0:
            child(job, asked["options"], os.path.join(scratch, "tmp"), outputs)
        code, timed_out = wait(pid, job["seconds"])
        sweep()
        (out, truncated), (err, _) = map(read, outputs)
        return result(started, code, out, err, timed_out, truncated)
    finally:
        if os.getpid() == DRIVER:  # the fork leaves through here too
            put_back(kept)
            remove(scratch)


def patched(names, kept, number, apply):
    """Apply patches; what git says when one does not fit. kept: gets what stood in the files before."""
    for name in names:
        patch = os.path.join(FOLDER, name)
        for path in touched(patch):
            kept.setdefault(path, content(path))
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(ROOT)}
        done = subprocess.run([*apply, patch], check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            return done.stderr[-300:] or "git apply failed"
    for path, (_, status) in kept.items():
        if status and os.path.exists(path):
            # Bytecode is known by seconds and size: a patch of the same second and size must not be taken for the old file.
            os.utime(path, (status.st_mtime + 1000 + number, status.st_mtime + 1000 + number))
    return ""


def result(started, exit_code, stdout="", stderr="", timed_out=False, truncated=False, unfit=False):
    return {
        "exit_code": exit_code, "stdout": stdout, "stderr": stderr, "timed_out": timed_out, "truncated": truncated,
        "seconds": time.monotonic() - started, "unfit": unfit,
    }  # fmt: skip


def child(job, options, scratch, outputs):
    """Becomes `python -m pytest ...`; leaves by SystemExit, so that the interpreter ends as it always does."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None
    random.seed()  # else all runs draw the same, and chance is not seen
    sys.dont_write_bytecode = bool(job["patches"])
    sys.path[0] = ROOT
    sys.argv = ["pytest", *options, *job["tests"]]
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
    sys.exit(0)


def wait(pid, seconds):
    """(exit code, whether it was ended) of a child; a signal's number is negative."""
    ends = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        left = ends - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL, True
        signal.sigtimedwait({signal.SIGCHLD}, left)


def sweep():
    """End every process that a run left behind: orphans become children of this one."""
    for _ in range(100):
        pids = children()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def children():
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def touched(patch):
    """Paths that a patch changes, from its headers."""
    with open(patch, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n") for line in file if line.startswith(("--- a/", "+++ b/"))]
    return sorted({line[6:].split("\t")[0] for line in lines})


def content(path):
    """(bytes, status), or (None, None) when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read(), os.stat(path)
    except FileNotFoundError:
        return None, None


def put_back(kept):
    for path, (data, status) in kept.items():
        if data is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            continue
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # git removes a folder with its last file
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read(path):
    """(text, whether there is more)."""
    try:
        with open(path, "rb") as file:
            data = file.read(KEPT + 1)
    except FileNotFoundError:
        return "", False
    return data[:KEPT].decode("utf-8", "replace"), len(data) > KEPT


def snapshot(root):
    """Path -> what a change of the file would change. Bytecode and this driver's own folder do not count."""
    found = {}
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == "__pycache__" or entry.path == FOLDER:
                    continue
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    found[entry.path] = (status.st_mode,)
                else:
                    found[entry.path] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def restored(before, places):
    """Remove what a run added; False when it changed or removed anything."""
    for place in places:
        now = snapshot(place)
        if any(now.get(path) != known for path, known in before[place].items()):
            return False
        for path in sorted(now.keys() - before[place].keys()):
            remove(path)
        if snapshot(place).keys() - before[place].keys():
            return False
    return True


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)


def main():
    with open(os.path.join(FOLDER, "jobs.json")) as file:
        asked = json.load(file)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    preload()
    loaded = [getattr(module, "__file__", None) or "" for name, module in sys.modules.items() if name != "__main__"]
    if any(path.startswith(ROOT + os.sep) for path in loaded):
        sys.exit(PART_OF_PYTEST)
    gc.collect()
    gc.freeze()
    places = [ROOT] + ([tempfile.gettempdir()] if asked["private"] else [])
    before = {place: snapshot(place) for place in places}
    for number, job in enumerate(asked["jobs"]):
        line = json.dumps(run(job, asked, number))
        with open(os.path.join(FOLDER, "results.jsonl"), "a") as file:
            file.write(line + "\n")
        if not restored(before, places) or os.path.getsize(os.path.join(FOLDER, "results.jsonl")) > KEPT_OF_ALL:
            break


if __name__ == "__main__":
    main()
