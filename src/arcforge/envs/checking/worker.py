"""The checking process: `python -m arcforge.envs.checking.worker` answers comparisons, each in a forked child with limits.

Requests are JSON lines on stdin, {"kind": "expression" | "quantity" | "slide", "reference", "answer", "cpu_seconds"}; answers
are JSON lines on stdout, {"equal": bool, "note": str} or {"error": str, "of": "reference" | "machine"}. A child first reads the reference
and compares it with itself; what breaks until then is the reference's fault, what breaks later the answer's: symbolic
algebra on an unknown text may need any time and memory, so the child has CPU seconds and an address space of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

MEMORY_BYTES = 2 << 30
WALL_SECONDS = 60.0  # a child that uses up neither is starved by the machine
MODULES = {
    "expression": "arcforge.envs.checking.expressions",
    "quantity": "arcforge.envs.checking.quantities",
    "slide": "arcforge.envs.slides.reading",
}


def main() -> None:
    modules: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        kind = request["kind"]
        if kind not in modules:
            modules[kind] = importlib.import_module(MODULES[kind])
            for reference, answer in modules[kind].WARM_UP:  # caches that every child then finds filled
                modules[kind].compare(modules[kind].read_reference(reference), answer)
        print(json.dumps(_in_child(modules[kind], request)), flush=True)


def _in_child(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(module, request, writer)
    os.close(writer)
    try:
        said, in_time = _read(reader)
    finally:
        os.close(reader)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return _outcome(said, in_time, os.waitstatus_to_exitcode(status), request["cpu_seconds"])


def _outcome(said: list[dict[str, Any]], in_time: bool, code: int, cpu_seconds: int) -> dict[str, Any]:
    if not in_time or code == -signal.SIGKILL:
        return {"error": "the comparison was starved or killed", "of": "machine"}
    if not said or "broken" in said[0]:
        return {"error": said[0]["broken"] if said else f"exit code {code}", "of": "reference"}
    if len(said) > 1:
        return said[1]
    limits = f"{cpu_seconds} CPU seconds and {MEMORY_BYTES >> 30} GiB"
    return {"equal": False, "note": f"the answer cannot be compared within {limits}"}


def _read(reader: int) -> tuple[list[dict[str, Any]], bool]:
    """All that the child says, and whether it ended in time."""
    data, deadline = b"", time.monotonic() + WALL_SECONDS
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return [], False
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return [json.loads(line) for line in data.splitlines()], True
        data += chunk


def _child(module: Any, request: dict[str, Any], writer: int) -> NoReturn:
    def say(**what: Any) -> None:
        os.write(writer, json.dumps(what).encode() + b"\n")

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_seconds"], request["cpu_seconds"] + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        os.dup2(2, 1)  # libraries may print
        try:
            reference = module.read_reference(request["reference"])
        except BaseException as error:
            say(broken=f"{type(error).__name__}: {error}")
            os._exit(0)
        say(read=True)
        try:
            equal, note = module.compare(reference, request["answer"])
        except BaseException as error:
            equal, note = False, f"the answer cannot be read: {type(error).__name__}"
        say(equal=equal, note=note)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
