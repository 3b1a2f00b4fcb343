"""The whole path on a real repository: mined commits and injected bugs, measured, published, built and measured again."""

import json
import shutil

import pytest
from small_repository import git, small_repository, this_interpreter

from arcforge.core.errors import UserError
from arcforge.core.runs import read_jsonl
from arcforge.envs.swe.builder.checkouts import OverlayCheckouts, ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone, apply
from arcforge.envs.swe.builder.factory import BuildSettings, build_repository
from arcforge.envs.swe.builder.manifest import read_shard, write_shard
from arcforge.envs.swe.builder.measurement import resolved
from arcforge.envs.swe.builder.rebuild import build, validate_rows
from arcforge.envs.swe.builder.rejection import Rejected
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.builder.yields import table
from arcforge.sandbox.host import bubblewrap_works

SETTINGS = BuildSettings(bugs=6, workers=2, seconds=30)


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A factory after its run: (commits by name, the clone's folder, the factory's folder, the account)."""
    folder = tmp_path_factory.mktemp("factory")
    names = small_repository(folder / "shop")
    account = build_repository(
        folder / "shop", "corner/shop", folder / "out", SETTINGS, this_interpreter(), ProcessCheckouts()
    )
    return names, folder / "shop", folder / "out", account


@pytest.fixture(scope="module")
def rows(factory):
    return {row.task_id.rsplit("/", 1)[-1]: row for row in read_shard(factory[2] / "manifest", "corner/shop")[1]}


def test_candidates_are_measured_and_every_one_is_counted(factory, rows):
    names, _, out, account = factory
    assert account.outcomes["commit"] == {"valid": 2, "no_fail_to_pass": 1}
    assert account.sifted == {"message": 1, "no_source": 1}
    assert sum(account.outcomes["bug"].values()) == 6 and account.outcomes["bug"]["valid"] >= 2
    assert account.outcomes["part"] == {"no_fail_to_pass": 1}  # of the vague commit
    assert account.measured == 10 and account.valid == len(rows) and account.per_hour > 0
    assert "corner/shop" in table([account]) and "no_fail_to_pass 1" in table([account])
    fixed = rows[names["fixed"][:12]]
    assert fixed.fail_to_pass == (
        "tests/test_prices.py::test_cheapest[only one]",
        "tests/test_prices.py::test_cheapest[two of them]",
    )
    assert (fixed.pass_to_pass, fixed.type, fixed.changed_lines) == (3, "bug fix", 2)
    assert rows[names["feature"][:12]].fail_to_pass == ("tests/test_prices.py::test_discount",)


def test_a_second_call_goes_on_where_the_first_ended(factory):
    _, clone, out, account = factory
    again = build_repository(clone, "corner/shop", out, SETTINGS, this_interpreter(), ProcessCheckouts())
    assert again.measured == 0 and again.outcomes == account.outcomes
    results = out / "corner+shop" / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    shutil.copytree(out, out.parent / "torn")
    torn = out.parent / "torn" / "corner+shop" / "results.jsonl"
    torn.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # killed while writing
    resumed = build_repository(
        clone, "corner/shop", out.parent / "torn", SETTINGS, this_interpreter(), ProcessCheckouts()
    )
    assert resumed.measured == 1 and resumed.outcomes == account.outcomes


def test_the_manifest_holds_facts_and_no_code(factory, rows):
    text = (factory[2] / "manifest" / "corner+shop.jsonl").read_text()
    assert "sorted(" not in text and "Fix cheapest" not in text and "assert" not in text
    environment, _ = read_shard(factory[2] / "manifest", "corner/shop")
    assert environment.requirements == ("pytest==0",) and environment.commit == factory[0]["vague"]


def test_an_environment_is_built_again_without_its_future(factory, rows, tmp_path):
    names, folder, _, _ = factory
    clone = Clone(folder)
    built = build(rows[names["feature"][:12]], clone, tmp_path / "feature")
    assert git(built.directory, "rev-list", "--all", "--count") == "1"
    assert "discount" not in (built.directory / "shop/prices.py").read_text()
    assert "discount" not in (built.directory / "tests/test_prices.py").read_text()
    assert built.statement == "Add a discount in percent\n\nUse these names: `discount`.\n"
    suite = Suite(clone, this_interpreter(), ProcessCheckouts(), 30)
    passing = [
        row
        for row in read_jsonl(factory[2] / "corner+shop/results.jsonl")
        if row["candidate"].endswith(names["feature"])
    ]
    apply(built.directory, built.hidden)
    lists = built.row.fail_to_pass, passing[0]["pass_to_pass"]
    assert not resolved(suite.run(built.directory, (), built.row.tests), *lists)
    apply(built.directory, built.gold)
    assert resolved(suite.run(built.directory, (), built.row.tests), *lists)
    with pytest.raises(UserError, match="not empty"):
        build(built.row, clone, built.directory)


def test_a_bug_is_built_again_with_its_tests_in_the_tree(factory, rows, tmp_path):
    row = next(row for row in rows.values() if row.bug)
    built = build(row, Clone(factory[1]), tmp_path / "bug")
    text = (built.directory / row.bug.path).read_text()
    assert text != (factory[1] / row.bug.path).read_text() and not built.hidden
    assert row.bug.path not in built.statement and row.fail_to_pass[0] in built.statement
    apply(built.directory, built.gold)
    assert (built.directory / row.bug.path).read_text() == (factory[1] / row.bug.path).read_text()


def test_published_rows_agree_and_changed_ones_do_not(factory, rows):
    suite = Suite(Clone(factory[1]), this_interpreter(), ProcessCheckouts(), 30)
    row = rows[factory[0]["fixed"][:12]]
    other_tests = row.model_copy(update={"pass_to_pass_sha256": "0" * 64})
    other_patch = row.model_copy(update={"gold_sha256": "0" * 64})
    agreement = validate_rows([row, other_tests, other_patch], suite, workers=2)
    assert agreement.outcomes == {"agrees": 1, "differs": 1, "patch_changed": 1} and agreement.share == 1 / 3


def test_a_large_shard_is_compressed_and_read_back(factory, rows, tmp_path):
    environment, held = read_shard(factory[2] / "manifest", "corner/shop")
    many = [row.model_copy(update={"task_id": f"{row.task_id}{n}"}) for row in held for n in range(120)]
    assert write_shard(tmp_path, environment, held).suffix == ".jsonl"
    path = write_shard(tmp_path, environment, many)
    assert path.suffix == ".zst" and path.stat().st_size < 1 << 17 and not (tmp_path / "corner+shop.jsonl").exists()
    assert sorted(read_shard(tmp_path, "corner/shop")[1], key=str) == sorted(many, key=str)


def test_a_suite_that_hangs_or_never_starts_is_no_environment(factory, tmp_path):
    names, folder, _, _ = factory
    hanging = b'--- a/shop/prices.py\n+++ b/shop/prices.py\n@@ -1,1 +1,3 @@\n+while True:\n+    pass\n """Prices."""\n'
    for patch, reason in ((hanging, "timeout"), (b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "patch")):
        suite = Suite(Clone(folder), this_interpreter(), ProcessCheckouts(), 1.5)
        with pytest.raises(Rejected) as caught, suite.tree(names["fixed"]) as tree:
            suite.run(tree, [patch], ["tests/test_prices.py"])
        assert caught.value.reason == reason
    suite = Suite(Clone(folder), this_interpreter(), ProcessCheckouts(), 30)
    with pytest.raises(Rejected) as caught, suite.tree(names["fixed"]) as tree:
        suite.run(tree, (), ["tests/test_none.py"])
    assert caught.value.reason == "suite_did_not_run"


def test_a_suite_that_does_not_run_gives_no_bugs_and_says_why(tmp_path):
    small_repository(tmp_path / "shop")
    settings = BuildSettings(commits=0, bugs=5, suite_seconds=0.05)
    account = build_repository(
        tmp_path / "shop", "corner/shop", tmp_path / "out", settings, this_interpreter(), ProcessCheckouts()
    )
    assert account.outcomes == {"suite": {"timeout": 1}} and account.valid == 0


BUBBLEWRAP = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap is not installed or may not make namespaces")


@pytest.fixture
def overlays():
    checkouts = OverlayCheckouts()
    yield checkouts
    checkouts.close()


@BUBBLEWRAP
def test_a_checkout_has_no_network_and_nothing_of_the_machine_and_its_tree_stays_as_it_is(tmp_path, overlays):
    interpreter = this_interpreter()
    (tmp_path / "secret").write_text("1")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kept").write_text("as it was\n")
    script = (
        "import json, os, socket\n"
        "names = [name for _, name in socket.if_nameindex()]\n"
        f"seen = os.path.exists({str(tmp_path / 'secret')!r})\n"
        "open('kept', 'w').write('1'); open('made', 'w').write('x' * (2 << 20))\n"
        "print(json.dumps([os.getcwd(), names, seen, os.getuid(), sorted(os.environ)]))"
    )
    with overlays.open(tree, interpreter.folders) as checkout:
        checkout.apply(b"--- a/kept\n+++ b/kept\n@@ -1 +1 @@\n-as it was\n+patched\n")
        assert checkout.read("kept") == "patched\n"
        done = checkout.run([str(interpreter.python), "-c", script], {}, 20)
        assert len(checkout.read("made")) == 2 << 20
        with pytest.raises(OSError, match="No such file"):
            checkout.read("missing")
        with pytest.raises(Rejected, match="patch"):
            checkout.apply(b"--- a/kept\n+++ b/kept\n@@ -1 +1 @@\n-other\n+new\n")
    place, interfaces, seen, user, variables = json.loads(done.stdout)
    assert (place, interfaces, seen, user) == ("/workspace", ["lo"], False, 1000)
    assert (tree / "kept").read_text() == "as it was\n" and "PYTHONHASHSEED" in variables


@BUBBLEWRAP
@pytest.mark.slow
def test_rows_measured_in_processes_agree_in_sandboxes(factory, rows, overlays):
    suite = Suite(Clone(factory[1]), this_interpreter(), overlays, 30)
    assert validate_rows(list(rows.values()), suite, workers=2).share == 1
    with suite.tree(factory[0]["fixed"]) as tree:
        run, entered = suite.entered(tree, ["tests/test_prices.py", "tests/test_text.py"])
        assert {("shop/prices.py", 4), ("tests/test_prices.py", 10)} < set(entered["tests/test_prices.py::test_tax"])
        assert "tests/test_text.py::test_shorten[a b - c-a b - c]" in run.passed
