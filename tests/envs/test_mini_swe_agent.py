"""mini-swe-agent, unmodified, at work in our sandboxes, and our verifiers on what it leaves. Its own deterministic model speaks."""

import asyncio
import json
import subprocess
import sys
from contextlib import closing

import pytest
from small_repository import small_repository, this_interpreter

from arcforge.core.errors import SandboxError, UserError
from arcforge.envs.swe.builder.checkouts import OverlayCheckouts
from arcforge.envs.swe.builder.clone import Clone
from arcforge.envs.swe.builder.measurement import resolved
from arcforge.envs.swe.builder.mining import find_commit, measure_commit
from arcforge.envs.swe.builder.rebuild import build
from arcforge.envs.swe.builder.suite import Suite
from arcforge.envs.terminal.generate import generate
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.verdict import verdict
from arcforge.sandbox.host import bubblewrap_works
from arcforge.sandbox.mini_swe_agent import MARK, OverlayEnvironment, SandboxEnvironment, within

SUBMIT = f"echo {MARK}"
REPRODUCE = "python -c 'from shop.prices import cheapest; assert cheapest([2, 1]) == [1]'"
MEND = "sed -i 's/count - 1/count/' shop/prices.py"
REPAIR = ["ls shop tests; cat shop/prices.py", REPRODUCE, MEND, REPRODUCE, f"{SUBMIT}; git diff"]
PLAIN = {"system_template": "You repair.", "instance_template": "{{task}} ({{system}} {{machine}})", "cost_limit": 0}


@pytest.fixture(scope="module")
def minisweagent(tmp_path_factory):
    """The package, silent and with its settings in a folder of the tests'."""
    if not bubblewrap_works():
        pytest.skip("bubblewrap does not work here")
    with pytest.MonkeyPatch.context() as changed:
        for name, value in quiet(tmp_path_factory.mktemp("settings")).items():
            changed.setenv(name, value)
        yield pytest.importorskip("minisweagent", reason="the package mini-swe-agent is optional")


@pytest.fixture(scope="module")
def shop(minisweagent, tmp_path_factory):
    """(suite, measured task, environment) of a commit that repairs prices.py."""
    folder = tmp_path_factory.mktemp("mini")
    names = small_repository(folder / "shop")
    clone = Clone(folder / "shop")
    with closing(OverlayCheckouts()) as checkouts:
        suite = Suite(clone, this_interpreter(), checkouts, 60)
        task = measure_commit(suite, "corner/shop", find_commit(clone, names["fixed"]))
        yield suite, task, build(task.row, clone, folder / "environment")


def quiet(folder):
    return {
        "MSWEA_SILENT_STARTUP": "1", "MSWEA_CONFIGURED": "true", "MSWEA_GLOBAL_CONFIG_DIR": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }  # fmt: skip


def turns(commands):
    return [{"role": "assistant", "content": "", "extra": {"actions": [{"command": text}]}} for text in commands]


def play(environment, commands, task="Mend it."):
    """The unmodified agent's (result, messages)."""
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.models.test_models import DeterministicModel

    agent = DefaultAgent(DeterministicModel(outputs=turns(commands)), environment, **PLAIN)
    return agent.run(task), agent.messages


def passes(shop, patch):
    """Whether the hidden tests pass on the environment with a patch, in a fresh checkout."""
    suite, task, built = shop
    with suite.tree(built.row.base) as tree:
        run = suite.run(tree, [patch.encode(), built.hidden], built.row.tests)
    return resolved(run, task.row.fail_to_pass, task.measured.pass_to_pass)


def test_it_repairs_a_repository_and_the_hidden_tests_pass(shop, tmp_path):
    before = (shop[2].directory / "shop/prices.py").read_text()
    with closing(OverlayEnvironment(folder=shop[2].directory, patch=tmp_path / "fix.patch")) as environment:
        result, messages = play(environment, REPAIR, shop[2].statement)
    codes = [message["extra"]["returncode"] for message in messages if "returncode" in message.get("extra", {})]
    assert result["exit_status"] == "Submitted" and codes == [0, 1, 0, 0]
    assert "AssertionError" in messages[5]["content"] and "Linux" in messages[1]["content"]
    assert (shop[2].directory / "shop/prices.py").read_text() == before
    assert passes(shop, (tmp_path / "fix.patch").read_text()) and passes(shop, result["submission"])


def test_doing_nothing_does_not_pass(shop, tmp_path):
    with closing(OverlayEnvironment(folder=shop[2].directory, patch=tmp_path / "fix.patch")) as environment:
        result, _ = play(environment, [SUBMIT])
    assert result == {"exit_status": "Submitted", "submission": ""} and (tmp_path / "fix.patch").read_text() == ""
    assert not passes(shop, "")


def test_it_works_on_a_terminal_task_that_the_tests_of_the_task_grade(minisweagent):
    task = generate("text", 0, 1)
    solution = task.part("solution")["solve.sh"].decode()

    async def reward(commands):
        async with SandboxRunner() as runner, runner.image(task) as image, image.attempt() as attempt:
            environment = SandboxEnvironment(attempt.box, within(asyncio.get_running_loop()))
            result, _ = await asyncio.to_thread(play, environment, commands, task.instruction)
            assert result["exit_status"] == "Submitted"
            return verdict(await attempt.verify()).reward

    assert [asyncio.run(reward(commands)) for commands in ([solution, SUBMIT], [SUBMIT])] == [1.0, 0.0]


def test_its_command_line_takes_the_class_from_its_configuration(shop, tmp_path):
    agent = {**PLAIN, "mode": "yolo", "confirm_exit": False}
    environment = {
        "environment_class": "arcforge.sandbox.mini_swe_agent.OverlayEnvironment",
        "folder": str(shop[2].directory),
        "patch": str(tmp_path / "fix.patch"),
    }
    model = {"model_class": "deterministic", "model_name": "scripted", "outputs": turns(REPAIR)}
    config = tmp_path / "repair.yaml"  # JSON is YAML
    config.write_text(json.dumps({"agent": agent, "environment": environment, "model": model}))
    command = [
        sys.executable,
        "-m",
        "minisweagent.run.mini",
        "-c",
        config,
        "-t",
        "Mend it.",
        "-o",
        tmp_path / "run.json",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "run.json").read_text())["info"]
    assert told["exit_status"] == "Submitted" and told["config"]["environment_type"] == environment["environment_class"]
    assert passes(shop, (tmp_path / "fix.patch").read_text())


def test_what_a_command_can_come_to(minisweagent, tmp_path):
    settings = {"folder": tmp_path, "env": {"WORD": "a b"}, "timeout": 20}
    with closing(OverlayEnvironment(**settings)) as environment:

        def ran(command, *place, **more):
            return tuple(environment.execute({"command": command}, *place, **more).values())

        assert ran("echo one; echo two >&2; echo three; exit 3") == ("one\ntwo\nthree\n", 3, "")
        assert ran('echo "$WORD"; pwd', "/tmp") == ("a b\n/tmp\n", 0, "")
        assert ran("echo x > file; cat file; cat") == ("x\n", 0, "")
        assert environment.diff() == "--- /dev/null\n+++ b/file\n@@ -0,0 +1 @@\n+x\n" and not list(tmp_path.iterdir())
        output, code, problem = ran("echo begun; sleep 60", timeout=1)
        assert (output, code) == ("begun\n", -1) and "more than 1 seconds" in problem
        assert "end is missing" in ran("yes | head -c 300000")[2] and ran("no-such-program")[1] == 127
        assert ran(f"echo {MARK}; false")[1] == 1  # not submitted
        shown = environment.get_template_vars(task="t")
        assert shown["node"] == "sandbox" and shown["task"] == "t" and "PATH" not in shown
        assert environment.serialize()["info"]["config"]["environment"]["folder"] == str(tmp_path)
    with pytest.raises(SandboxError):
        asyncio.run(environment._sandbox.exec(["true"]))


WRONG = {
    r"environment\.folder: Field required": {},
    r"environment\.image": {"folder": ".", "image": "x"},
    "no such folder": {"folder": "no-such"},
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_settings_are_told_in_one_line(what):
    with pytest.raises(UserError, match=what):
        OverlayEnvironment(**WRONG[what])


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "minisweagent", None)
    monkeypatch.setitem(sys.modules, "minisweagent.exceptions", None)
    with pytest.raises(UserError, match="pip install mini-swe-agent"):
        SandboxEnvironment(None, asyncio.run)
