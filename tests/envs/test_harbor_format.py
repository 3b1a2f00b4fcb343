"""Harbor's tasks read and written, and its verdicts believed only where the verifier made them."""

import os
import re
import stat

import pytest

from arcforge.core.errors import UserError, VerifierError
from arcforge.envs.terminal.harbor import (
    EnvironmentPart,
    HarborConfig,
    HarborTask,
    VerifierPart,
    megabytes,
    read_config,
    read_task,
    without_canary,
    write_task,
)
from arcforge.envs.terminal.verdict import VerifierRun, verdict

FILES = {
    "environment/Dockerfile": b"FROM ubuntu:24.04\nWORKDIR /app\n",
    "tests/test.sh": b"#!/bin/bash\necho 1 > /logs/verifier/reward.txt\n",
    "tests/data/expected.bin": bytes(range(256)),
    "solution/solve.sh": b"#!/bin/bash\ntouch done\n",
}


def test_a_task_that_is_written_is_read_back_whole(tmp_path):
    config = HarborConfig(
        metadata={"difficulty": "easy", "tags": ["files"]},
        environment=EnvironmentPart(memory_mb=512, network_mode="no-network", env={"LANG": "C.UTF-8"}),
    )
    task = HarborTask("count-lines", "Count the lines.\n", config, FILES, frozenset({"tests/test.sh"}))
    folder = write_task(task, tmp_path)
    assert folder == tmp_path / "count-lines" and read_task(folder) == task
    assert os.stat(folder / "tests/test.sh").st_mode & stat.S_IXUSR
    assert not os.stat(folder / "solution/solve.sh").st_mode & stat.S_IXUSR
    assert task.part("tests") == {"test.sh": FILES["tests/test.sh"], "data/expected.bin": bytes(range(256))}
    with pytest.raises(UserError, match="exists already"):
        write_task(task, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["count-lines"]


def test_older_schemas_and_fields_that_are_not_known_here(tmp_path):
    (tmp_path / "task.toml").write_text(
        'version = "1.0"\n[metadata]\nauthor_name = "A"\n[verifier]\ntimeout_sec = 30.0\n'
        '[agent]\ntimeout_sec = 60\n[environment]\nmemory = "2G"\nstorage = "10G"\nallow_internet = false\nnew_field = 3\n'
    )
    config = read_config(tmp_path / "task.toml")
    environment = config.environment
    assert (environment.memory_mb, environment.storage_mb, environment.network_mode) == (2048, 10240, "no-network")
    assert (config.schema_version, config.verifier.timeout_sec, config.agent.timeout_sec) == ("1.0", 30, 60)
    assert environment.model_dump()["new_field"] == 3
    assert read_config(tmp_path / "none.toml") == HarborConfig()
    (tmp_path / "task.toml").write_text('version = "2.0"\n')
    own = read_config(tmp_path / "task.toml")
    assert own.schema_version == "1.4" and own.model_dump()["version"] == "2.0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = ", "not valid TOML"),
        ('schema_version = "9.0"', "'9.0' is not one of"),
        ('[environment]\nmemory = "lots"', "'lots' is no size"),
        ("[verifier]\ntimeout_sec = -1", "verifier.timeout_sec"),
        ('[environment]\nnetwork_mode = "wifi"', "environment.network_mode"),
    ],
)
def test_a_broken_task_toml_is_told_in_one_line(tmp_path, text, told):
    (tmp_path / "task.toml").write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        read_config(tmp_path / "task.toml")
    assert "\n" not in str(caught.value) and str(tmp_path / "task.toml") in str(caught.value)


def test_a_path_out_of_the_task_is_not_written(tmp_path):
    for path in ("tests/../../x", "elsewhere/x", "instruction.md"):
        with pytest.raises(UserError, match="is not in environment"):
            write_task(HarborTask("t", "do", files={path: b""}), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_links_in_a_task_are_not_followed(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "instruction.md").write_text("do it")
    (tmp_path / "tests/passwd").symlink_to("/etc/passwd")
    assert not read_task(tmp_path).files
    with pytest.raises(UserError, match=r"no instruction\.md"):
        read_task(tmp_path / "tests")


def test_a_task_in_several_steps_has_an_instruction_for_each_and_none_of_its_own(tmp_path):
    (tmp_path / "task.toml").write_text('schema_version = "1.1"\n[[steps]]\nname = "one"\n')
    (tmp_path / "steps/one").mkdir(parents=True)
    (tmp_path / "steps/one/instruction.md").write_text("do it")
    task = read_task(tmp_path)
    assert task.instruction == "" and task.files == {"steps/one/instruction.md": b"do it"}
    assert "several steps" in task.problem()


def test_another_network_is_another_task(tmp_path):
    task = HarborTask("t", "do\n", HarborConfig(environment=EnvironmentPart(network_mode="no-network")), FILES)
    folder = write_task(task.with_network("public"), tmp_path)
    assert read_task(folder).config.environment.network_mode == "public"
    assert task.config.environment.network_mode == "no-network"


def test_canary_lines_at_the_top_are_left_out():
    text = "<!-- harbor-canary GUID 12 -->\n# Canary: do not train\n\nDo it.\n# canary is a bird\n"
    assert without_canary(text) == "Do it.\n# canary is a bird\n"
    assert without_canary("Do it.\n") == "Do it.\n"


@pytest.mark.parametrize(
    ("size", "found"), [("2G", 2048), ("512M", 512), ("512Mi", 512), (1 << 30, 1024), ("1.5GB", 1536)]
)
def test_sizes(size, found):
    assert megabytes(size) == found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"config": HarborConfig(steps=[{"name": "one"}])}, "several steps"),
        ({"config": HarborConfig(environment=EnvironmentPart(os="Windows"))}, "windows"),
        ({"config": HarborConfig(environment=EnvironmentPart(mcp_servers=[{"name": "a"}]))}, "MCP"),
        ({"config": HarborConfig(verifier=VerifierPart(environment_mode="separate"))}, "of their own"),
        ({"config": HarborConfig(environment=EnvironmentPart(gpus=1))}, "GPU"),
        ({"files": {**FILES, "environment/docker-compose.yaml": b""}}, "compose"),
        ({"files": {"tests/test.sh": b""}}, "Dockerfile"),
        ({"files": {"environment/Dockerfile": b""}}, r"tests/test\.sh"),
        ({}, "^$"),
    ],
)
def test_why_a_task_cannot_be_run_here(change, told):
    assert re.search(told, HarborTask(**{"name": "t", "instruction": "do", "files": FILES, **change}).problem())


def run(files, exit_code=0, timed_out=False):
    return VerifierRun(exit_code, timed_out, 100.0, files)


@pytest.mark.parametrize(
    ("files", "reward"),
    [
        ({"reward.txt": ("1\n", 101.0)}, 1.0),
        ({"reward.txt": ("0.25", 101.0)}, 0.25),
        ({"reward.json": ('{"reward": 0}', 101.0), "reward.txt": ("1", 101.0)}, 0.0),
        ({"reward.json": ('{"tests": 1, "style": 0.5}', 101.0)}, 0.75),
    ],
)
def test_rewards_that_a_verifier_wrote(files, reward):
    assert verdict(run(files)).reward == reward


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (run({}), "neither"),
        (run({"reward.txt": ("1", 99.0)}), "older than the verifier"),
        (run({"reward.txt": ("1", 101.0)}, exit_code=137), "died with exit code 137"),
        (run({"reward.txt": ("1", 101.0)}, exit_code=127), "127"),
        (run({"reward.txt": ("1", 101.0)}, exit_code=-9), "-9"),
        (run({"reward.txt": ("1", 101.0)}, exit_code=1), "says 1 and test.sh ended with exit code 1"),
        (run({"reward.txt": ("1", 101.0)}, timed_out=True), "in time"),
        (run({"reward.txt": ("", 101.0)}), r"reward\.txt"),
        (run({"reward.txt": ("nan", 101.0)}), "finite"),
        (run({"reward.txt": ("inf", 101.0)}), "finite"),
        (run({"reward.txt": ("2", 101.0)}), "outside"),
        (run({"reward.json": ("{}", 101.0)}), "finite"),
        (run({"reward.json": ('{"reward": true}', 101.0)}), "finite"),
        (run({"reward.json": ("[1]", 101.0)}), "finite"),
        (run({"reward.json": ('{"reward": NaN}', 101.0)}), "finite"),
    ],
)
def test_a_verifier_that_says_nothing_is_no_zero(case, told):
    with pytest.raises(VerifierError, match=told) as caught:
        verdict(case)
    assert caught.value.failure().boundary == "verifier"


def test_a_failed_verifier_may_say_0():
    assert verdict(run({"reward.txt": ("0", 101.0)}, exit_code=1)).reward == 0.0
