"""The test program: `python runner.py` in a directory with limits.json, tests.json and solution.json. Standard library only.

Two processes: this one runs the tests, its child loads the solution and answers calls of its functions over a pipe. Only
plain values come back, so nothing that the solution makes can pose as a right answer or be asked about equality. The child
is forked before the tests are read, and their file is gone before the solution starts.

limits.json: {"cpu_seconds", "wall_seconds"}. solution.json: sources, run in order. tests.json: {"nonce", "setup", "names",
"tests"}. setup: source run before the tests. names: functions of the solution that the tests call. tests: sources, each of
which passes when it ends without an exception.
Report, one line of JSON on stdout: {"nonce", "passed", "total", "problem"}; exit code 0 iff every test passed.
"""

import builtins
import collections.abc
import ctypes
import decimal
import fractions
import json
import os
import resource
import select
import signal
import sys
import time

MOST_BYTES = 4 << 20
MOST_ITEMS = 100_000
PR_SET_DUMPABLE = 4


class Ended(BaseException):
    """The solution's process ended, hangs or speaks nonsense; no test's `except Exception` may swallow it."""


class Foreign(Exception):
    """An exception of the solution whose class is not a built-in one."""


class BadTest(BaseException):
    """The tests ask for what this program cannot do."""


def main():
    here = os.getcwd()
    sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != os.path.realpath(here)]
    with open("limits.json") as file:
        limits = json.load(file)
    calls, answers, go = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        for descriptor in (calls[1], answers[0], go[1]):
            os.close(descriptor)
        solution(calls[0], answers[1], go[0], limits["cpu_seconds"])
    for descriptor in (calls[0], answers[1], go[0]):
        os.close(descriptor)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no reading of this memory, no tracing
    with open("tests.json") as file:
        job = json.load(file)
    os.unlink("tests.json")
    os.write(go[1], b"x")
    os.close(go[1])
    channel = Channel(calls[1], answers[0], time.monotonic() + limits["wall_seconds"])
    passed, problem = run(job, channel, limits["wall_seconds"])
    os.kill(pid, signal.SIGKILL)
    report = {"nonce": job["nonce"], "passed": passed, "total": len(job["tests"]), "problem": problem[:300]}
    os.write(1, json.dumps(report).encode() + b"\n")
    os._exit(0 if passed == len(job["tests"]) else 1)


def run(job, channel, seconds):
    """(tests passed, what the first failure was)."""
    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    passed, problem = 0, ""
    try:
        channel.loaded()
        names = {"__name__": "tests"}
        exec(compile(job["setup"], "setup", "exec"), names)
        names.update({name: channel.function(name) for name in job["names"]})
        for number, test in enumerate(job["tests"]):
            try:
                exec(compile(test, f"test {number}", "exec"), names)
                passed += 1
            except Exception as error:
                problem = problem or f"test {number}: {type(error).__name__}: {error}"
    except Ended as error:
        passed, problem = 0, str(error)
    except BadTest as error:
        passed, problem = 0, f"bad test: {error}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    return passed, problem


def expired(*_):
    raise Ended("timeout")


class Channel:
    """Calls to the solution's process and its answers, a line of JSON each."""

    def __init__(self, calls, answers, deadline):
        self.calls, self.answers, self.deadline, self.buffer = calls, answers, deadline, b""

    def loaded(self):
        told = self.line()
        if told.get("loaded") is not True:
            raise Ended(f"the solution does not load: {told.get('raised', '')}: {told.get('text', '')}")

    def function(self, name):
        def call(*args, **kwargs):
            try:
                request = {"name": name, "args": encode(args), "kwargs": encode(kwargs)}
            except TypeError as error:
                raise BadTest(str(error)) from None
            data = json.dumps(request).encode() + b"\n"
            try:
                while data:
                    data = data[os.write(self.calls, data) :]
            except OSError:
                raise Ended("crash") from None
            told = self.line()
            if "raised" in told:
                kind = getattr(builtins, str(told["raised"]), None)
                if not (isinstance(kind, type) and issubclass(kind, Exception)):
                    kind = Foreign
                raise kind(str(told.get("text", "")))
            return decode(told.get("value"))

        return call

    def line(self):
        while b"\n" not in self.buffer:
            if not select.select([self.answers], [], [], max(0.0, self.deadline - time.monotonic()))[0]:
                raise Ended("timeout")
            chunk = os.read(self.answers, 1 << 16)
            if not chunk:
                raise Ended("crash")
            self.buffer += chunk
            if len(self.buffer) > MOST_BYTES:
                raise Ended("an answer is too large")
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            told = json.loads(line)
        except (ValueError, RecursionError):
            raise Ended("an answer that cannot be read") from None
        if not isinstance(told, dict):
            raise Ended("an answer that cannot be read")
        return told


def solution(calls, answers, go, cpu_seconds):
    """The child: wait for the start, load the solution, answer calls. Never returns."""
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        if os.read(go, 1) != b"x":
            os._exit(1)
        for kind in (resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
            resource.setrlimit(kind, (0, 0))
        serve(os.fdopen(calls), answers)
    finally:
        os._exit(1)


def serve(calls, answers):
    sys.argv[:] = ["solution.py"]
    names = {"__name__": "solution"}
    try:
        with open("solution.json") as file:
            for number, source in enumerate(json.load(file)):
                exec(compile(source, f"solution {number}", "exec"), names)
        say(answers, {"loaded": True})
    except BaseException as error:
        say(answers, {"raised": type(error).__name__, "text": str(error)[:200]})
        return
    for line in calls:
        asked = json.loads(line)
        try:
            function = names[asked["name"]]
            told = {"value": encode(function(*decode(asked["args"]), **decode(asked["kwargs"])))}  # pyright: ignore[reportCallIssue]
        except BaseException as error:
            told = {"raised": type(error).__name__, "text": str(error)[:200]}
        say(answers, told)


def say(answers, told):
    data = json.dumps(told).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def encode(value):
    """JSON of a plain value. Subclasses become what they derive from; TypeError for anything else."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {"t": "dict", "v": [[encode(k), encode(v)] for k, v in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {"t": kind.__name__, "v": [encode(item) for item in value]}
    if isinstance(value, complex):
        return {"t": "complex", "v": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"t": "bytes", "v": list(value)}
    if isinstance(value, fractions.Fraction | decimal.Decimal):
        return {"t": type(value).__name__, "v": str(value)}
    if isinstance(value, range):
        return {"t": "range", "v": [value.start, value.stop, value.step]}
    if type(value).__module__ == "numpy":
        return encode(value.tolist())
    if isinstance(value, collections.abc.Iterable):
        return {"t": "iterator", "v": [encode(item) for _, item in zip(range(MOST_ITEMS), value)]}
    raise TypeError(f"a value of type {type(value).__name__} cannot be handed over")


def decode(data):
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    value = data["v"]
    match data["t"]:
        case "dict":
            return {decode(k): decode(v) for k, v in value}
        case "tuple":
            return tuple(map(decode, value))
        case "set":
            return set(map(decode, value))
        case "frozenset":
            return frozenset(map(decode, value))
        case "complex":
            return complex(*value)
        case "bytes":
            return bytes(value)
        case "range":
            return range(*value)
        case "iterator":
            return iter([decode(item) for item in value])
        case "Fraction":
            return fractions.Fraction(value)
        case "Decimal":
            return decimal.Decimal(value)
    raise ValueError(data["t"])


if __name__ == "__main__":
    main()
