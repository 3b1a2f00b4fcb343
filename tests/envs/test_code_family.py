"""The family code: solutions pass, broken ones fail, and no trick of a solution earns anything or breaks the machinery."""

import asyncio
import json

import pytest
from levelled_checks import hold_splits_apart, hold_to_the_protocol, reward

from arcforge.core.errors import SandboxError, TaskError, VerifierError
from arcforge.core.protocols import ExecResult
from arcforge.envs.code.family import CodeFamily
from arcforge.envs.code.running import Program, forked, run_tests
from arcforge.envs.code.scorer import TestScorer, last_block
from arcforge.sandbox.fork import ForkServer
from arcforge.sandbox.process import ProcessSandbox

SQUARES = Program(tests=("assert solve(2) == 4", "assert solve(3) == 9"), names=("solve",))
ALWAYS_EQUAL = (
    "class A(int):\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n    __hash__ = int.__hash__\n"
)


def run(code, program=SQUARES, wall=20.0):
    async def attempt():
        server = ForkServer()
        try:
            return await run_tests(forked(server), code, program, wall)
        finally:
            await server.close()

    return asyncio.run(attempt())


def test_it_is_a_levelled_family():
    hold_to_the_protocol(CodeFamily(), CodeFamily(), CodeFamily(1))
    assert len(CodeFamily().domains) == 6
    assert CodeFamily().demonstration(0).messages[-1].reasoning == ""


def test_splits_never_meet_whatever_the_seed():
    hold_splits_apart([CodeFamily(0), CodeFamily(1)], 18)


def validate(seed, split, indices):
    async def every():
        family = CodeFamily(seed)
        try:
            for index in indices:
                assert len(family.exercise(split, index).wrong) == 2
                await family.validate(split, index)
        finally:
            await family.close()

    asyncio.run(every())


def test_solutions_pass_and_broken_ones_fail():
    validate(3, "train", range(30))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_hundreds_of_solutions_pass_and_broken_ones_fail(split):
    validate(11, split, range(120))


def test_right_solutions():
    assert run("def solve(x): return x * x") == run("print('noise')\nsolve = lambda x: x ** 2")
    assert run("def solve(x): return x * x").passed == 2


FORGERIES = {
    "leaves with success": "import os; os._exit(0)",
    "leaves when called": "import sys\ndef solve(x): sys.exit(0)",
    "prints a report": 'import os\nos.write(1, b\'{"nonce": 1, "passed": 2, "total": 2, "problem": ""}\\n\')\ndef solve(x): return 0',
    "is equal to everything": ALWAYS_EQUAL + "def solve(x): return A(7)",
    "is no plain value": "class B:\n    __eq__ = lambda *_: True\ndef solve(x): return B()",
    "reads the tests": "def solve(x): return len(open('tests.json').read())",
    "kills the test program": "import os\nos.kill(os.getppid(), 9)",
    "kills it when called": "import os\ndef solve(x): os.kill(os.getppid(), 9)",
    "answers too much": "def solve(x): return 'a' * 10**7",
    "takes all memory": "def solve(x): return [0] * 10**10",
    "nests without end": "x = []\nfor _ in range(10**5): x = [x]\ndef solve(_): return x",
    "lifts its limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\ndef solve(x): return x * x",
    "patches assert": "import builtins\nbuiltins.AssertionError = ValueError\ndef solve(x): return 1",
    "plants a module": "open('math.py', 'w').write('raise SystemExit(0)')\ndef solve(x): return 1",
    "does not parse": "def solve(x) return x",
    "is empty": "",
    "raises": "def solve(x): raise KeyboardInterrupt",
}


@pytest.mark.parametrize("trick", FORGERIES)
def test_forged_results_and_crashes_earn_nothing(trick):
    report = run(FORGERIES[trick], SQUARES.model_copy(update={"setup": "import math"}))
    assert report.passed < report.total == 2 and report.problem


@pytest.mark.parametrize("code", ["def solve(x):\n    while True: pass", "import time\ndef solve(x): time.sleep(60)"])
def test_a_solution_that_hangs_is_stopped(code):
    assert run(code, wall=2.0).problem in ("timeout", "crash")


def test_plain_values_come_back_as_they_are():
    values = [
        None,
        True,
        -7,
        2**80,
        0.1,
        "ü\n",
        b"\x00\xff",
        (1, (2,)),
        {1, 2},
        frozenset({3}),
        {"a": [1], (1, 2): None},
        2 + 3j,
        range(3),
    ]
    tests = tuple(
        f"assert same({value!r}) == {value!r} and type(same({value!r})) is type({value!r})" for value in values
    )
    tests += (
        "assert list(gen()) == [0, 1]",
        "try:\n    fail()\n    raise SystemError\nexcept KeyError:\n    pass",
        "assert count('aab') == {'a': 2, 'b': 1}",
    )
    code = (
        "from collections import Counter as count\ndef same(x): return x\ndef gen(): yield from range(2)\n"
        "def fail(): return {}[1]"
    )
    report = run(code, Program(tests=tests, names=("same", "gen", "fail", "count")))
    assert report.passed == report.total == len(values) + 3, report.problem


def test_tests_that_cannot_be_run_are_the_tasks_fault():
    with pytest.raises(TaskError, match="bad test"):
        run("def solve(f): return f(1)", Program(tests=("assert solve(lambda x: x) == 1",), names=("solve",)))


class Broken:
    """A sandbox that answers with `result`, or fails."""

    def __init__(self, result=None):
        self.result, self.files = result, {}

    async def write(self, path, text):
        self.files[path] = text

    async def exec(self, argv, timeout=10.0, stdin=""):
        if self.result is None:
            raise SandboxError("gone")
        nonce = json.loads(self.files["tests.json"])["nonce"]
        return self.result.model_copy(update={"stdout": self.result.stdout.replace("NONCE", nonce)})

    async def close(self):
        pass


def test_broken_machinery_is_raised_and_never_a_score():
    def attempt(result):
        return asyncio.run(run_tests(lambda: Broken(result), "def solve(x): return 1", SQUARES))

    with pytest.raises(SandboxError, match="gone"):
        attempt(None)
    with pytest.raises(VerifierError, match="no report"):
        attempt(ExecResult(exit_code=0, stdout="", stderr=""))
    with pytest.raises(VerifierError, match="no report"):
        attempt(ExecResult(exit_code=-9, stdout="", stderr="", timed_out=True))
    full = '{"nonce": "NONCE", "passed": 2, "total": 2, "problem": ""}'
    with pytest.raises(VerifierError, match="exit code is 1"):
        attempt(ExecResult(exit_code=1, stdout=full, stderr=""))
    with pytest.raises(VerifierError, match="no report"):
        attempt(ExecResult(exit_code=0, stdout=full.replace("NONCE", "guessed"), stderr=""))


def test_another_sandbox_runs_the_same_program():
    assert asyncio.run(run_tests(ProcessSandbox, "def solve(x): return x * x", SQUARES)).passed == 2


def test_the_last_block_is_the_program():
    assert last_block("```python\na = 1\n```\nor\n```py\nb = 2\n```") == "b = 2\n"
    assert last_block("```\nc\n```") == "c\n" and last_block("  ```python\n  d\n  ```") == "  d\n"
    assert last_block("a = 1") is None and last_block("```python\na = 1") is None


def test_grading():
    async def every():
        family = CodeFamily()
        try:
            task = family.task("train", 0)
            solution = task.reference["answer"]
            assert await reward(task, f"Here:\n```python\n{solution}\n```") == 1.0
            assert await reward(task, solution) == 0.0
            with pytest.raises(TaskError, match="program"):
                await TestScorer(ProcessSandbox).score([family.reply(solution)], {})
        finally:
            await family.close()

    asyncio.run(every())
