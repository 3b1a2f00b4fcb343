"""The verifier's program on folders that an agent may leave behind."""

import gzip
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from arcforge.envs.terminal import checker

HASH = hashlib.sha256(b"one\n").hexdigest()


@pytest.fixture
def app(tmp_path, monkeypatch):
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.setattr(checker, "ROOT", str(folder))
    return folder


def holds(kind, **check):
    try:
        checker.CHECKS[kind](**check)
    except checker.Wrong:
        return False
    return True


def test_texts_tables_and_documents(app):
    (app / "t").write_text("b \na\n\n")
    assert holds("text", path="t", text="b\na\n") and not holds("text", path="t", text="a\nb\n")
    assert holds("text", path="t", text="a\nb", unordered=True)
    (app / "c").write_text('x,"1.0"\r\ny,2\n')
    assert holds("csv", path="c", rows=[["x", "1"], ["y", "2"]]) and not holds("csv", path="c", rows=[["x", "1"]])
    (app / "j").write_text('{"a": [1.0, true, "x"]}')
    assert holds("json", path="j", value={"a": [1, True, "x"]})
    for wrong in ({"a": [1, 1, "x"]}, {"a": [1, True]}, {}, [1], {"a": [1, True, "x"], "b": 1}):
        assert not holds("json", path="j", value=wrong)
    (app / "j").write_text("{")
    (app / "bin").write_bytes(b"\xff")
    assert not holds("json", path="j", value={}) and not holds("text", path="bin", text="x")


def test_what_is_no_plain_file_inside_is_not_read(app, tmp_path):
    (tmp_path / "secret").write_text("one\n")
    (app / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(app / "pipe")
    (app / "large").write_bytes(b"x" * 10)
    os.truncate(app / "large", checker.MOST_BYTES + 1)
    for path in ("out", "pipe", "large", "../secret", "missing", "."):
        assert not holds("text", path=path, text="one\n") and not holds("bytes", path=path, sha256=HASH)
    (app / "in").write_text("one\n")
    (app / "link").symlink_to("in")
    assert holds("bytes", path="link", sha256=HASH)
    assert not holds("tree", path=".", files={"in": HASH})


def test_trees_modes_links_and_absence(app):
    (app / "d/e").mkdir(parents=True)
    (app / "d/e/f").write_text("one\n")
    (app / "d/e/f").chmod(0o640)
    (app / "l").symlink_to("d/e/f")
    assert holds("tree", path="d", files={"e/f": HASH}) and not holds("tree", path="d", files={})
    assert holds("mode", path="d/e/f", mode="640") and not holds("mode", path="d/e/f", mode="644")
    assert holds("link", path="l", target="d/e/f") and not holds("link", path="d", target="e")
    assert holds("absent", path="x") and not holds("absent", path="l")


def test_archives_and_databases(app):
    with zipfile.ZipFile(app / "z", "w") as archive:
        archive.writestr("a/", "")
        archive.writestr("a/x", "one\n")
    with tarfile.open(app / "t", "w:gz") as archive:
        entry = tarfile.TarInfo("./a/x")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"one\n"))
    (app / "g").write_bytes(gzip.compress(b"one\n"))
    assert all(holds("archive", path=name, members={"a/x": HASH}) for name in "zt")
    assert not any(holds("archive", path=name, members={"a/x": "0"}) for name in "ztg")
    assert holds("gzip", path="g", sha256=HASH) and not holds("gzip", path="z", sha256=HASH)
    with sqlite3.connect(app / "db") as database:
        database.execute("CREATE TABLE t(a, b)")
        database.execute("INSERT INTO t VALUES (1, 'x')")
    database.close()
    assert holds("sqlite", path="db", query="SELECT * FROM t", rows=[[1, "x"]])
    assert not holds("sqlite", path="db", query="SELECT c FROM t", rows=[])
    assert not holds("sqlite", path="g", query="SELECT * FROM t", rows=[])


def verify(folder, checks, app):
    """main() in a process of its own, as test.sh starts it; (reward, output)."""
    tests, logs = folder / "tests", folder / "logs"
    tests.mkdir()
    logs.mkdir()
    (logs / "reward.json").write_text('{"reward": 1}')
    (tests / "checks.json").write_text(json.dumps(checks))
    code = f"import sys; sys.path.insert(0, {os.path.dirname(checker.__file__)!r}); import checker\n"
    code += f"checker.ROOT = {str(app)!r}; checker.main({str(tests)!r}, {str(logs)!r})"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in logs.iterdir()] == ["reward.txt"]
    return (logs / "reward.txt").read_text(), done.stdout


def test_programs_are_run_on_hidden_inputs_and_one_failure_is_enough(app, tmp_path):
    (app / "s.sh").write_text('read x; echo "$x $1 $(cat d/f)"; exit 3\n')
    check = {
        "kind": "command",
        "argv": ["/bin/bash", "s.sh", "b"],
        "stdin": "a\n",
        "files": {"d/f": "c"},
        "exit_code": 3,
    }
    assert verify(tmp_path, [{**check, "stdout": "a b c\n"}], app)[0] == "1\n"
    (tmp_path / "other").mkdir()
    reward, said = verify(tmp_path / "other", [{**check, "stdout": "a b c\n"}, {**check, "stdout": "x\n"}], app)
    assert reward == "0\n" and said.count("passed:") == 1 and said.count("failed:") == 1


def test_a_program_sees_no_answers_and_leaves_no_daemon(app, tmp_path):
    """It looks for the expected values beside the verifier and in its memory, and leaves a process that writes rewards."""
    forge = f"echo 1 > {tmp_path}/logs/reward.txt; touch {tmp_path}/alive; sleep 0.01"
    (app / "s.sh").write_text(f"""cat {tmp_path}/tests/checks.json
cat /proc/$PPID/environ 2>/dev/null | head -c 100
(setsid bash -c 'for i in $(seq 1000); do {forge}; done' > /dev/null 2>&1 &)
while [ ! -e {tmp_path}/alive ]; do sleep 0.01; done
""")
    reward, _ = verify(tmp_path, [{"kind": "command", "argv": ["/bin/bash", "s.sh"], "stdout": "the answer\n"}], app)
    before = (tmp_path / "alive").stat().st_mtime
    time.sleep(0.3)
    assert (tmp_path / "logs/reward.txt").read_text() == reward == "0\n"
    assert (tmp_path / "alive").stat().st_mtime == before


def test_a_program_that_does_not_end_fails(app, tmp_path):
    check = {"kind": "command", "argv": ["/bin/sleep", "30"], "seconds": 1}
    assert verify(tmp_path, [check, {"kind": "command", "argv": ["/no/such/program"]}], app)[0] == "0\n"
