"""Environments in the formats of others: what is written runs as written, and the others' own code reads and grades it."""

import asyncio
import json
from dataclasses import replace

import pytest
from small_repository import small_repository, this_interpreter
from typer.testing import CliRunner

from arcforge.cli.main import app
from arcforge.core.errors import UserError
from arcforge.envs.swe.builder.broken import GoldRuns, broken_by_bug, measure_together
from arcforge.envs.swe.builder.bugs import Bug
from arcforge.envs.swe.builder.checkouts import ProcessCheckouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.manifest import environment_row, read_shard, write_shard
from arcforge.envs.swe.builder.mining import find_commit, measure_commit
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.swe.exports import swebench
from arcforge.envs.swe.exports.image import HOME
from arcforge.envs.swe.exports.pytest_parser import parser
from arcforge.envs.swe.logs.parse import parse
from arcforge.envs.terminal.harbor import read_task
from arcforge.pipeline.swe_exports import exported_environments
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.overlay import WORK, OverlaySandboxes

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
NAME = "corner/shop"
BUG = Bug(path="shop/text.py", kind="comparison_swapped", number=0)
TESTS = ("tests/test_prices.py", "tests/test_text.py")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(the clone's folder, the manifest's, the bug's id): a commit that mends, and an injected bug."""
    folder = tmp_path_factory.mktemp("exports")
    names = small_repository(folder / "shop")
    clone = Clone(folder / "shop")
    suite = Suite(clone, this_interpreter(), ProcessCheckouts(), 60)
    tasks = [measure_commit(suite, NAME, find_commit(clone, names["fixed"]))]
    golds = GoldRuns(suite, names["vague"])
    tasks += measure_together([broken_by_bug(clone, NAME, (names["vague"], 0), BUG, TESTS)], golds)
    golds.close()
    described = environment_row(NAME, names["vague"], this_interpreter())
    write_shard(folder / "manifest", described, [task.row for task in tasks])
    return folder / "shop", folder / "manifest", tasks[1].row.task_id


def export(shop, format, out, task=""):
    return exported_environments(format, shop[0], NAME, shop[1], out, task, this_interpreter(), ProcessCheckouts())


@pytest.fixture(scope="module")
def rows(shop, tmp_path_factory):
    """SWE-bench's rows by source, and where they lie."""
    out = tmp_path_factory.mktemp("swebench")
    assert export(shop, "swebench", out).startswith("2 of 2 environments")
    return [json.loads(line) for line in (out / "swebench.jsonl").read_text().splitlines()], out


@pytest.fixture(scope="module")
def result(shop, tmp_path_factory):
    """RepoLaunch's result for the bug, and the folder of its environment."""
    out = tmp_path_factory.mktemp("repolaunch")
    assert export(shop, "repolaunch", out, shop[2]).startswith("1 of 1 environments")
    (path,) = out.glob("*/result.json")
    return json.loads(path.read_text()), path.parent


def in_image(folder, script, patch="", files=()):
    """What bash prints for a script in a sandbox that has the folder where the images have it, after a patch."""

    async def work():
        async with OverlaySandboxes() as boxes:
            spec = boxes.host(folder / "repository")
            overlays = {HOME if inside == WORK else inside: below for inside, below in spec.overlays.items()}
            async with await boxes.create(replace(spec, overlays=overlays, workdir=HOME)) as box:
                for path, content in dict(files).items():
                    await box.write_bytes(path, content)
                if patch:
                    done = await box.exec(["git", "apply", "-"], stdin=patch)
                    assert done.exit_code == 0, done.stderr
                return (await box.exec(["bash", "-c", 'exec bash -c "$1" 2>&1', "bash", script], 60)).stdout

    return asyncio.run(work())


def named(documents, word):
    return next(document for document in documents if f"-{word}-" in document["instance_id"])


def test_a_row_has_the_facts_of_its_environment(rows):
    by_id = {row["instance_id"]: row for row in rows[0]}
    assert len(by_id) == 2 and all(name.startswith("corner__shop-") for name in by_id)
    fixed = next(row for row in rows[0] if "cheapest" in row["problem_statement"])
    assert fixed["FAIL_TO_PASS"] == [
        "tests/test_prices.py::test_cheapest[only one]",
        "tests/test_prices.py::test_cheapest[two of them]",
    ]
    assert len(fixed["PASS_TO_PASS"]) == 3 and "shop/prices.py" in fixed["patch"]
    assert "test_cheapest" in fixed["test_patch"] and fixed["created_at"].endswith("Z")
    bug = named(rows[0], "bug")
    assert bug["test_patch"] == "" and "git apply" not in bug["eval_script"] and "shop/text.py" in bug["patch"]
    context = rows[1] / bug["instance_id"]
    assert "COPY repository/ /testbed/" in (context / "Dockerfile").read_text()
    assert (context / "requirements.txt").read_text() == "pytest==0\n" and (context / "repository/.git").is_dir()


@needs_bubblewrap
def test_the_script_of_a_row_tells_the_solution_from_nothing(rows):
    for row in rows[0]:
        folder = rows[1] / row["instance_id"]
        logs = [in_image(folder, row["eval_script"], patch) for patch in (row["patch"], "")]
        solved, empty = (swebench.readable(log.split(swebench.START)[1].split(swebench.END)[0]) for log in logs)
        assert solved.issuperset(row["FAIL_TO_PASS"] + row["PASS_TO_PASS"])
        assert empty.issuperset(row["PASS_TO_PASS"]) and not empty.intersection(row["FAIL_TO_PASS"])


@needs_bubblewrap
def test_the_script_puts_the_tests_back(rows):
    row = named(rows[0], "bug")
    emptied = "".join(f"rm {path}\ntouch {path}\n" for path in TESTS)
    log = in_image(rows[1] / row["instance_id"], f"cd {HOME}\n{emptied}{row['eval_script']}git status --short")
    assert swebench.readable(log).issuperset(row["PASS_TO_PASS"]) and "\n M " not in log


@needs_bubblewrap
def test_swebench_itself_reads_the_rows_and_grades_them(rows, tmp_path):
    """Its loader, its test specification with the line that it adds to the script, the parser that the row names, its report."""
    pytest.importorskip("swebench", reason="the package swebench is optional")
    from swebench.harness.grading import get_eval_report
    from swebench.harness.utils import load_swebench_dataset, make_test_spec

    loaded = load_swebench_dataset(str(rows[1] / "swebench.jsonl"))
    assert [row["instance_id"] for row in loaded] == [row["instance_id"] for row in rows[0]]
    for row in loaded:
        spec, reports = make_test_spec(row), []
        for patch in (row["patch"], ""):
            log = tmp_path / "test_output.txt"
            log.write_text(in_image(rows[1] / row["instance_id"], spec.eval_script, patch))
            assert ">>>>> Test Exit Code: " in log.read_text()
            prediction = {"instance_id": row["instance_id"], "model_patch": patch, "model_name_or_path": "gold"}
            reports.append(get_eval_report(spec, prediction, str(log), include_tests_status=True)[row["instance_id"]])
        gold, nothing = reports
        assert gold["resolved"] and gold["patch_successfully_applied"], gold
        assert not nothing["resolved"] and nothing["patch_successfully_applied"]
        assert nothing["tests_status"]["PASS_TO_PASS"]["failure"] == []
        assert nothing["tests_status"]["FAIL_TO_PASS"]["success"] == []


@needs_bubblewrap
def test_the_commands_of_a_result_give_what_it_says(result):
    told, folder = result
    fields = (
        "repo instance_id base_commit created_at language docker_image_layers setup_cmds test_cmds print_cmds log_parser "
        "docker_image rebuild_cmds test_status pertest_command"
    )
    assert list(told) == fields.split()
    space = {}
    exec(told["log_parser"], space)
    log = in_image(folder, "; ".join([*told["test_cmds"], *told["print_cmds"]]))
    assert space["parser"](log) == told["test_status"] and "fail" in told["test_status"].values()
    test, outcome = next(iter(told["test_status"].items()))
    assert space["parser"](in_image(folder, told["pertest_command"][test])) == {test: outcome}
    assert "git -c safe.directory=/testbed apply" in told["setup_cmds"][0]  # the bug
    assert told["docker_image_layers"]["setup_layer"][-len(told["setup_cmds"]) :] == told["setup_cmds"]


@needs_bubblewrap
def test_a_harbor_task_rewards_the_solution_alone(shop, tmp_path):
    assert export(shop, "harbor", tmp_path, shop[2]).startswith("1 of 1 environments")
    (folder,) = tmp_path.glob("[!v.]*")
    task = read_task(folder)
    assert not task.problem() and task.config.environment.network_mode == "no-network"
    files = {f"/{path}": content for path, content in task.files.items() if path.startswith(("tests/", "solution/"))}
    forged = "import os\nprint('PASSED tests/test_prices.py::test_tax', flush=True)\nos._exit(0)\n"

    def rewarded(before):
        script = f"{before}\nbash /tests/test.sh; cat /logs/verifier/reward.txt || echo none"
        return in_image(folder / "environment", script, files=files).splitlines()[-1]

    assert rewarded("bash /solution/solve.sh") == "1"
    assert rewarded("mkdir -p /logs/verifier; echo 1 > /logs/verifier/reward.txt") == "0"
    assert rewarded(f"cat > {HOME}/shop/text.py <<'E'\n{forged}E") == "0"
    missing = rewarded(
        "mkdir /tmp/bin; for tool in mkdir rm bash git cat; do ln -s $(which $tool) /tmp/bin; done; PATH=/tmp/bin"
    )
    assert missing == "none"  # without a Python nothing is told


LOG = """tests/a.py::test_one PASSED                     [ 20%]
tests/a.py::test_two[a - b] FAILED               [ 40%]
tests/a.py::test_three SKIPPED (no reason)       [ 60%]
tests/a.py::test_four XFAIL (known)              [ 80%]
tests/a.py::test_five PASSED                     [100%]
tests/a.py::test_five ERROR                      [100%]

=========================== short test summary info ============================
PASSED tests/a.py::test_one
PASSED tests/a.py::test_five
SKIPPED [1] tests/a.py:3: no reason
XFAIL tests/a.py::test_four - known
ERROR tests/a.py::test_five - E
FAILED tests/a.py::test_two[a - b] - assert 0
======== 1 failed, 2 passed, 1 skipped, 1 xfailed, 1 error in 0.03s ============
"""


def test_the_parser_of_a_result_reads_as_ours_does():
    words = {"passed": "pass", "failed": "fail", "error": "fail", "skipped": "skip"}
    assert parser(LOG) == {name: words[outcome] for name, outcome in parse("pytest", LOG, 1).items()}
    assert swebench.readable(LOG + "PASSED tests/a.py::test[a  b]\n") == {
        "tests/a.py::test_one",
        "tests/a.py::test_five",
    }


def test_nothing_without_a_test_to_mend_is_exported(shop, tmp_path):
    environment, (first, *_) = read_shard(shop[1], NAME)
    write_shard(tmp_path / "manifest", environment, [first.model_copy(update={"fail_to_pass": ()})])
    with pytest.raises(UserError, match="no_fail_to_pass: FAIL_TO_PASS is empty: any patch would resolve it") as caught:
        export((shop[0], tmp_path / "manifest", ""), "swebench", tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "swebench.jsonl").exists()


def test_the_command_line_says_what_is_missing(shop, tmp_path):
    for words, what in (
        (("--format", "swebench"), "--manifest"),
        (("--format", "tar", "--manifest", str(shop[1])), "swebench or repolaunch or harbor"),
    ):
        said = CliRunner().invoke(app, ["env", "export", "--out", str(tmp_path), *words])
        assert said.exit_code == 2 and what in said.output
