"""The verifier of a generated task: a program of its own, /tests/check.py, that holds /tests/checks.json against what the
agent left in /app and writes 1 or 0 into /logs/verifier/reward.txt. Standard library only.

It trusts nothing of the agent's: run it as `python3 -I -S` with an empty environment. Links out of /app, pipes and huge
files fail a check instead of being read. Where a check runs a program of the agent's, that program gets no view of the
expected values (the file is gone by then, this process cannot be traced), and everything it started is killed before
the reward is written. What only some checks need is imported there: starting up is most of what a verifier costs.
"""

import hashlib
import io
import json
import math
import os
import stat
import sys
import time

ROOT = "/app"
MOST_BYTES = 16 << 20
PROGRAM_SECONDS = 20
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class Wrong(Exception):
    """What is not as it should be."""


def inside(path):
    """The real path of a name below ROOT."""
    real, root = os.path.realpath(os.path.join(ROOT, path)), os.path.realpath(ROOT)
    if real != root and not real.startswith(root + os.sep):
        raise Wrong(f"{path} leads out of {ROOT}")
    return real


def content(path):
    real = inside(path)
    try:
        about = os.stat(real)
    except OSError:
        raise Wrong(f"{path} is missing") from None
    if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
        raise Wrong(f"{path} is no file of less than {MOST_BYTES >> 20} MiB")
    with open(real, "rb") as file:
        return file.read()


def read_text(path):
    try:
        return content(path).decode()
    except UnicodeDecodeError:
        raise Wrong(f"{path} is not UTF-8") from None


def lines(string):
    """Without spaces at the ends of lines and blank lines at the end."""
    return [line.rstrip() for line in string.rstrip().split("\n")] if string.strip() else []


def expect(found, wanted, what):
    if not same(found, wanted):
        raise Wrong(f"{what}: {str(found)[:200]!r} is not what is wanted")


def same(found, wanted):
    """Numbers to 1e-6, everything else as it is."""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return found is wanted
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-6)
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found == wanted


def check_text(path, text, unordered=False):
    found, wanted = lines(read_text(path)), lines(text)
    expect(sorted(found) if unordered else found, sorted(wanted) if unordered else wanted, path)


def check_bytes(path, sha256):
    expect(hashlib.sha256(content(path)).hexdigest(), sha256, path)


def check_json(path, value):
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise Wrong(f"{path}: {error}") from None
    expect(found, value, path)


def check_csv(path, rows):
    import csv

    found = [[_number(cell) for cell in row] for row in csv.reader(io.StringIO(read_text(path))) if row]
    expect(found, [[_number(cell) for cell in row] for row in rows], path)


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return str(cell).strip()


def check_absent(path):
    if os.path.lexists(os.path.join(ROOT, path)):
        raise Wrong(f"{path} is there")


def check_tree(path, files):
    """Exactly these regular files below a folder: relative path -> SHA-256."""
    top = inside(path)
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            place = os.path.join(folder, name)
            relative = os.path.relpath(place, top)
            kept = os.path.isfile(place) and not os.path.islink(place) and os.path.getsize(place) <= MOST_BYTES
            found[relative] = hashlib.sha256(content(place)).hexdigest() if kept else "no file"
    expect(found, files, path)


def check_mode(path, mode):
    try:
        found = stat.S_IMODE(os.lstat(os.path.join(ROOT, path)).st_mode)
    except OSError:
        raise Wrong(f"{path} is missing") from None
    expect(f"{found:o}", mode, f"mode of {path}")


def check_link(path, target):
    try:
        found = os.readlink(os.path.join(ROOT, path))
    except OSError:
        raise Wrong(f"{path} is no symbolic link") from None
    expect(found, target, f"target of {path}")


def check_archive(path, members):
    """Exactly these files in a tar (of any compression) or zip archive: name -> SHA-256."""
    import tarfile
    import zipfile

    raw, found = io.BytesIO(content(path)), {}
    try:
        if zipfile.is_zipfile(raw):
            with zipfile.ZipFile(raw) as archive:
                names = [entry for entry in archive.infolist() if not entry.is_dir() and entry.file_size <= MOST_BYTES]
                found = {entry.filename: hashlib.sha256(archive.read(entry)).hexdigest() for entry in names}
        else:
            raw.seek(0)
            with tarfile.open(fileobj=raw) as archive:
                for entry in archive:
                    if entry.isfile() and entry.size <= MOST_BYTES:
                        data = archive.extractfile(entry)
                        held = data.read() if data is not None else b""
                        found[entry.name.removeprefix("./")] = hashlib.sha256(held).hexdigest()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise Wrong(f"{path} cannot be read as an archive: {error}") from None
    expect(found, members, path)


def check_gzip(path, sha256):
    import gzip

    try:
        with gzip.open(io.BytesIO(content(path))) as file:
            found = hashlib.sha256(file.read(MOST_BYTES)).hexdigest()
    except (OSError, EOFError) as error:
        raise Wrong(f"{path} is no gzip file: {error}") from None
    expect(found, sha256, path)


def check_sqlite(path, query, rows):
    import sqlite3
    import tempfile

    with tempfile.NamedTemporaryFile() as copy:
        copy.write(content(path))
        copy.flush()
        try:
            connection = sqlite3.connect(copy.name)
            found = [list(row) for row in connection.execute(query)]
            connection.close()
        except sqlite3.Error as error:
            raise Wrong(f"{path}: {error}") from None
    expect(found, rows, f"{path}: {query}")


def check_command(argv, stdout=None, exit_code=0, stdin="", cwd=".", files=None, env=None, unordered=False, seconds=0):
    """argv[0] is absolute. files: written below ROOT first. stdout: its lines; exit_code None: any."""
    for path, written in (files or {}).items():
        place = inside(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w") as file:
            file.write(written)
    code, output = run(argv, inside(cwd), stdin, env or {}, seconds or PROGRAM_SECONDS)
    if exit_code is not None:
        expect(code, exit_code, f"exit code of {' '.join(argv)}")
    if stdout is not None:
        found, wanted = lines(output), lines(stdout)
        expect(
            sorted(found) if unordered else found,
            sorted(wanted) if unordered else wanted,
            f"output of {' '.join(argv)}",
        )


def run(argv, cwd, stdin, env, seconds):
    """(exit code, standard output) of a program that is not trusted; -1 when it took too long."""
    import resource
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as taken:
        given.write(stdin.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv, cwd=cwd, env={**ENVIRONMENT, **env}, stdin=given, stdout=taken, stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES)),  # noqa: PLW1509
            )  # fmt: skip
        except OSError as error:
            raise Wrong(f"{argv[0]}: {error}") from None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            stop_descendants()
        taken.seek(0)
        return code, taken.read(MOST_BYTES).decode("utf-8", "replace")


def stop_descendants():
    """Kill whatever this process's children left behind; orphans come back to it, it is their reaper."""
    import signal
    from contextlib import suppress

    deadline = time.monotonic() + 10
    while (left := descendants()) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    if descendants():
        sys.exit("processes of the agent's cannot be stopped")


def descendants():
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        parents[int(name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


CHECKS = {
    name.removeprefix("check_"): function for name, function in list(globals().items()) if name.startswith("check_")
}


def guard():
    """Orphans of children become our children, and programs of the same user cannot read our memory."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def main(tests, logs):
    with open(os.path.join(tests, "checks.json")) as file:
        checks = json.load(file)
    if any(check["kind"] == "command" for check in checks):
        guard()
        os.unlink(os.path.join(tests, "checks.json"))
    passed = True
    for check in checks:
        kind = check.pop("kind")
        try:
            CHECKS[kind](**check)
            print(f"passed: {kind} {check.get('path') or check.get('argv')}")
        except Wrong as error:
            passed = False
            print(f"failed: {kind}: {error}")
    write_reward(logs, passed)


def write_reward(logs, passed):
    """The only reward in the folder, whatever stood there."""
    for name in os.listdir(logs):
        place = os.path.join(logs, name)
        os.rename(place, os.path.join(logs, f".{name}")) if os.path.isdir(place) else os.unlink(place)
    with open(os.path.join(logs, "reward.txt"), "w") as file:
        file.write("1\n" if passed else "0\n")


if __name__ == "__main__":
    main("/tests", "/logs/verifier")
