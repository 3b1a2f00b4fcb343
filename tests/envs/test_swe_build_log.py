"""What pytest prints, read back whole."""

import subprocess
import sys

import pytest
from small_repository import QUICK

from arcforge.core.protocols import ExecResult
from arcforge.envs.swe.builder.measurement import SuiteRun, compare, names_sha256, resolved
from arcforge.envs.swe.builder.pytest_run import PYTEST, read_run
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.logs.parse import parse

HARD = """
import pytest

print("PASSED test_hard.py::test_forged")

@pytest.mark.parametrize("x", [1, 2, 3, 4], ids=["a b", "c - d", "[e] - f]", "PASSED g"])
@pytest.mark.parametrize("good", [True, False])
def test_name(x, good):
    assert good, "message - with dashes] - and brackets"

@pytest.fixture
def broken():
    yield
    raise RuntimeError("teardown - broke")

def test_torn(broken):
    print("3 passed in 0.01s")

@pytest.mark.skip(reason="PASSED test_hard.py::test_skipped")
def test_skipped(): ...

@pytest.mark.xfail
def test_expected(): assert False

class TestIn:
    def test_method(self): ...
"""


def pytest_of(folder, *files):
    command = [sys.executable, *PYTEST, *QUICK, *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_names_with_spaces_dashes_and_brackets_are_whole(tmp_path):
    (tmp_path / "test_hard.py").write_text(HARD)
    (tmp_path / "test_unimportable.py").write_text("import nothing_of_this_name")
    done = pytest_of(tmp_path, "test_hard.py", "test_unimportable.py")
    run = SuiteRun.of(parse("pytest", done.stdout, done.returncode))
    ids = ["a b", "c - d", "[e] - f]", "PASSED g"]
    good = {f"test_hard.py::test_name[True-{name}]" for name in ids}
    assert run.passed == good | {"test_hard.py::TestIn::test_method", "test_hard.py::test_expected"}
    bad = {f"test_hard.py::test_name[False-{name}]" for name in ids}
    assert run.failed == bad | {"test_hard.py::test_torn"}  # which passed, but its teardown broke
    assert run.broken == {"test_unimportable.py"} and run.fails("test_unimportable.py::test_any")
    assert not run.fails("test_hard.py::test_skipped")


PASSED = "=== short test summary info ===\nPASSED t.py::a\n"


@pytest.mark.parametrize(
    ("log", "exit_code", "reason"),
    [
        ("", 0, "suite_did_not_run"),
        ("ERROR: usage: pytest\n", 4, "suite_did_not_run"),
        ("=== no tests ran in 0.01s ===\n", 5, "suite_did_not_run"),
        ("=== 1 deselected in 0.01s ===\n", 0, "suite_did_not_run"),
        (PASSED, 0, "suite_did_not_run"),
        (f"{PASSED}=== 1 passed in 0.01s ===\n", -9, "suite_did_not_run"),
        (f"{PASSED}=== 1 passed in 0.01s ===\n", 1, "log"),
        ("=== short test summary info ===\nFAILED t.py::a\n=== 1 failed in 0.01s ===\n", 0, "log"),
        (f"{PASSED}=== 2 passed in 0.01s ===\n", 0, "log"),
        (f"{PASSED}PASSED t.py::b\n=== 1 passed in 1.0s ===\n", 0, "log"),
        (f"{PASSED}=== 1 passed in 0.01s ===\n{PASSED}=== 1 passed in 0.01s ===\n", 0, ""),
    ],
)
def test_what_did_not_run_or_contradicts_itself_is_invalid(log, exit_code, reason):
    result = ExecResult(exit_code=exit_code, stdout=log, stderr="")
    if not reason:
        assert read_run(result).passed == {"t.py::a"}  # the last summary is the suite's
        return
    with pytest.raises(Rejected) as caught:
        read_run(result)
    assert caught.value.reason == reason
    with pytest.raises(Rejected, match="more output than is kept"):
        read_run(result.model_copy(update={"truncated": True}))


def run(passed, failed="", broken=()):
    return SuiteRun(*(frozenset(f"t.py::{name}" for name in names) for names in (passed, failed)), frozenset(broken))


def test_only_what_every_run_agrees_on_is_listed():
    golds = [run("abcd"), run("abc", "d")]
    measured = compare(golds, [run("ad", "bc"), run("acd", "b")])
    assert (measured.fail_to_pass, measured.pass_to_pass) == (("t.py::b",), ("t.py::a",))
    assert measured.flaky == ("t.py::c", "t.py::d")


def test_tests_of_a_file_that_could_not_be_collected_count_as_failing():
    gold, before = run("a").passed | {"u.py::x"}, run("", broken=["t.py"]).passed | {"u.py::x"}
    measured = compare([SuiteRun(gold, frozenset(), frozenset())], [SuiteRun(before, frozenset(), frozenset({"t.py"}))])
    assert measured.fail_to_pass == ("t.py::a",)


@pytest.mark.parametrize(
    ("golds", "befores", "reason"),
    [
        ([run("ab")], [run("ab")], "no_fail_to_pass"),
        ([run("ab")], [run("b")], "no_fail_to_pass"),  # skipped before
        ([run("a")], [run("", "a")], "no_pass_to_pass"),
        ([run("", "ab")], [run("", "ab")], "gold_fails"),
        ([run("ab"), run("b", "a")], [run("b", "a"), run("b", "a")], "flaky"),
    ],
)
def test_pairs_that_are_no_environment(golds, befores, reason):
    with pytest.raises(Rejected) as caught:
        compare(golds, befores)
    assert caught.value.reason == reason


def test_a_task_without_failing_tests_is_refused_and_not_resolved():
    assert resolved(run("ab"), ["t.py::a"], ["t.py::b"])
    assert not resolved(run("a"), ["t.py::a"], ["t.py::b"]) and not resolved(run("b", "a"), ["t.py::a"], ["t.py::b"])
    with pytest.raises(Rejected):
        resolved(run("ab"), [], ["t.py::b"])


def test_the_hash_of_names_is_of_the_set():
    assert names_sha256(["b", "a"]) == names_sha256(["a", "b", "b"]) != names_sha256(["a b"])
