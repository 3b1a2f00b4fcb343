"""Many runs in one checkout: what each of them gives is what it gives alone, whatever the ones before did."""

import shutil
import subprocess
import time
from pathlib import Path

import iniconfig
import pytest
from small_repository import this_interpreter

from arcforge.envs.swe.builder import batch
from arcforge.envs.swe.builder.batch import Batch, Variant
from arcforge.envs.swe.builder.checkouts import OverlayCheckouts, ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone, commit_everything
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.unified import diff

CODE = "def double(x):\n    return x * 2\n"
MESSY = """
import os, pathlib, subprocess, tempfile
from code_of import double

def test_nothing_is_left():
    names = sorted(path.name for path in pathlib.Path(".").iterdir() if path.name[0] not in "._")
    assert names == ["code_of.py", "kept.txt", "lone", "tests"]
    assert not os.listdir(tempfile.gettempdir()) and "LEFT" not in os.environ

def test_mess():
    os.environ["LEFT"] = "1"
    os.makedirs("made/deep"), pathlib.Path("made/deep/file").write_text("x")
    tempfile.mkstemp()
    subprocess.Popen(["sleep", "3219"], start_new_session=True)

def test_double():
    assert double(3) == 6
"""
CHANGING = """
import pathlib, random
from code_of import double

def test_kept():
    kept = pathlib.Path("kept.txt")
    assert kept.read_text() == "as it was"
    kept.write_text("changed")

def test_chance():
    assert random.random() < 0

def test_double():
    assert double(3) == 6
"""
LONE = {"lone/one.py": "x = 1\n"}
FILES = {
    "code_of.py": CODE,
    "kept.txt": "as it was",
    **LONE,
    "tests/test_messy.py": MESSY,
    "tests/test_changing.py": CHANGING,
}


def patch(text):
    return diff({"code_of.py": CODE}, {"code_of.py": text}).encode()


WRONG, LOOP = patch(CODE.replace("2", "3")), patch(CODE.replace("return", "while True: x\n    return"))
GONE = diff(LONE, {}).encode()
ALIKE = patch(CODE.replace("2", "7"))  # of the same size


@pytest.fixture(params=["process", "overlay"])
def suite(request, tmp_path):
    if request.param == "overlay" and not bubblewrap_works():
        pytest.skip("bubblewrap is not installed or may not make namespaces")
    folder = tmp_path / "repository"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    commit_everything(folder, "base")
    checkouts = OverlayCheckouts() if request.param == "overlay" else ProcessCheckouts()
    yield Suite(Clone(folder), this_interpreter(), checkouts, 30)
    checkouts.close()


def outcome(ran):
    try:
        run = ran.run()
    except Rejected as error:
        return error.reason
    return sorted(name.split("::")[1] for name in run.failed)


def test_runs_of_a_batch_do_not_see_each_other(suite):
    messy, changing = ("tests/test_messy.py",), ("tests/test_changing.py",)
    variants = [
        Variant((), messy, 30), Variant((WRONG,), messy, 30), Variant((LOOP,), messy, 2), Variant((ALIKE,), messy, 30),
        Variant((b"--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-a\n+b\n",), messy, 30), Variant((), changing, 30),
        Variant((WRONG,), changing, 30), Variant((), ("tests/test_none.py",), 30), Variant((GONE,), messy, 30),
        Variant((), messy, 30),
    ]  # fmt: skip
    started = time.monotonic()
    with suite.tree(suite.clone.head()) as tree, Batch(suite, tree) as batch:
        done = batch.run(variants)
        again = batch.run(variants[:1])
    assert [outcome(ran) for ran in done] == [
        [], ["test_double"], "timeout", ["test_double"], "patch", ["test_chance"], ["test_chance", "test_double"],
        "suite_did_not_run", ["test_nothing_is_left"], [],
    ]  # fmt: skip
    assert outcome(again[0]) == [] and len(done[0].run().passed) == 3
    assert 2 <= done[2].seconds < time.monotonic() - started
    assert "sleep 3219" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_runs_go_one_by_one_where_the_driver_dies_and_that_is_told(suite, monkeypatch, tmp_path, capfd):
    driver = tmp_path / "driver.py"
    driver.write_text(f"raise OSError({str(tmp_path)!r})\n")
    monkeypatch.setattr(batch, "_DRIVER", driver)
    with suite.tree(suite.clone.head()) as tree, Batch(suite, tree) as runs:
        done = runs.run([Variant((WRONG,), ("tests/test_changing.py",), 30)])
    assert [outcome(ran) for ran in done] == [["test_chance", "test_double"]]
    assert f"one by one, because runs together fail: OSError: {tmp_path}" in capfd.readouterr().err


def test_a_tree_that_pytest_itself_imports_is_run_by_itself(suite):
    with suite.tree(suite.clone.head()) as tree:
        shutil.copytree(
            Path(iniconfig.__file__).parent, tree / "iniconfig", ignore=shutil.ignore_patterns("__pycache__")
        )
        text = (tree / "iniconfig/__init__.py").read_text()
        wrong = diff({"iniconfig/__init__.py": text}, {"iniconfig/__init__.py": f"1 / 0\n{text}"}).encode()
        with Batch(suite, tree) as batch:
            done = batch.run(
                [Variant((), ("tests/test_changing.py",), 30), Variant((wrong,), ("tests/test_changing.py",), 30)]
            )
            assert batch._alone
    assert [outcome(ran) for ran in done] == [["test_chance"], "suite_did_not_run"]
