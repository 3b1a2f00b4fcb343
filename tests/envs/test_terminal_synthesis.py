"""Tasks that a model writes: kept only when the sandbox admits them and the rubric holds; every way of failing is told and counted."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_tasks import CHEATING, GOOD, IDEAS, UNFORMED, Script, answer, easy, marks

from arcforge.core.errors import EngineError, UserError
from arcforge.core.runs import read_jsonl
from arcforge.envs.terminal.admission import admit
from arcforge.envs.terminal.harbor import read_task
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.synthesis.accounts import table
from arcforge.envs.terminal.synthesis.assembly import assemble
from arcforge.envs.terminal.synthesis.factory import SynthesisSettings, synthesize
from arcforge.envs.terminal.synthesis.files import parse_files
from arcforge.envs.terminal.synthesis.prompts import _EXAMPLE, prompts_hash
from arcforge.envs.terminal.synthesis.rules import decided
from arcforge.envs.terminal.synthesis.seeds import Seed
from arcforge.sandbox.host import bubblewrap_works

needs_bubblewrap = pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
SEEDS = [Seed(kind="topic", name="tables of numbers")]
ONE = SynthesisSettings(count=1, rounds=4, in_flight=1, oracle_runs=1)


def made(script, out, settings=ONE, seeds=SEEDS):
    return asyncio.run(synthesize(seeds, script.models, out, settings))


def tasks_in(out):
    return sorted((out / "tasks").glob("*/task.toml"))


@needs_bubblewrap
def test_a_bad_task_is_mended_until_it_is_admitted(tmp_path):
    """A form that is none, then a task that an untouched environment passes, then a good one: three rounds."""
    script = Script(UNFORMED, easy(), answer())
    account = made(script, tmp_path, SynthesisSettings(count=1, in_flight=1))
    assert account.outcomes == {"kept": 1} and account.rounds == {3: 1} and account.waiting == 1
    assert account.problems == {"format": 1, "nothing": 1}
    form, easily = script.told()
    assert "line 1 stands outside" in form and "nothing scores 1" in easily and "must write 0" in easily
    assert script.asked == ["drafts", "build", "build", "build", "judge"], (
        "the judge is asked of an admitted task alone"
    )

    task = read_task(tasks_in(tmp_path)[0].parent)
    held = task.config.metadata
    assert held["seed"] == "tables of numbers" and held["model"] == "scripted" and held["rounds"] == 3
    assert held["prompts"] == prompts_hash() and held["title"] == IDEAS[0]["title"] and held["difficulty"] == 1
    assert task.config.environment.network_mode == "no-network"
    assert asyncio.run(admitted(task)).admitted
    assert "kept" in table(account) and "answers for a kept task: 3 for 1" in table(account)


async def admitted(task):
    async with SandboxRunner() as runner:
        return await admit(task, runner, 1)


@needs_bubblewrap
def test_a_model_that_never_gets_it_right_is_counted_and_nothing_is_written(tmp_path):
    wrong = answer({"solution/solve.sh": "awk 'END {print NR}' amounts.txt > sum.txt"})
    account = made(Script(wrong), tmp_path, SynthesisSettings(count=2, rounds=2, oracle_runs=1))
    assert account.kept == 0 and account.outcomes == {"oracle": 2} and account.problems == {"oracle": 4}
    assert not (tmp_path / "tasks").exists()
    rows = read_jsonl(tmp_path / "ledger.jsonl")[1:]
    assert all("does not pass: 0.0" in row["detail"] and "failed: text" in row["detail"] for row in rows)


@needs_bubblewrap
def test_a_judge_that_fails_a_criterion_sends_it_back(tmp_path):
    def judge(request):
        better = (
            "to the whole sum"
            in json.loads(request.messages[0].content.rpartition("\n\n")[2])["files"]["instruction.md"]
        )
        return marks(request) if better else marks(request, typos="'amonts' is misspelt")

    better = answer({"instruction.md": GOOD["instruction.md"] + " A line with nothing else, to the whole sum."})
    script = Script(answer(), better, judge=judge)
    account = made(script, tmp_path)
    assert account.outcomes == {"kept": 1} and account.problems == {"rubric: typos": 1}
    assert "'amonts' is misspelt" in script.told()[0]
    findings = {f["criterion"]: f for f in read_jsonl(tmp_path / "ledger.jsonl")[1]["findings"]}
    assert len(findings) == 11 and findings["typos"]["by"] == "judge"
    assert findings["tests_or_solution_in_image"] == {
        **findings["tests_or_solution_in_image"],
        "mark": "pass",
        "by": "rule",
    }


@needs_bubblewrap
def test_tests_that_always_pass_are_refused_by_the_admission_and_the_judge_is_never_asked(tmp_path):
    script = Script(easy(CHEATING))
    account = made(script, tmp_path, SynthesisSettings(count=1, rounds=2, drafts=1, oracle_runs=1))
    assert account.outcomes == {"nothing": 1} and "judge" not in script.asked


@needs_bubblewrap
def test_tests_that_trust_the_agents_files_are_refused_by_a_probe(tmp_path):
    trusting = easy({"tests/test.sh": "cd /app\npython3 check_sum.py || python3 -c 'import json'\n" + SUMMED})
    account = made(Script(trusting), tmp_path, SynthesisSettings(count=1, rounds=1, drafts=1, oracle_runs=1))
    assert account.outcomes == {"probe: planted-python": 1}


SUMMED = 'if [ "$(cat sum.txt)" = 12 ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt'


@needs_bubblewrap
def test_an_unreadable_judge_is_a_failure_and_is_asked_again_by_the_next_call(tmp_path):
    script = Script(answer(), judge=lambda request: "All eleven criteria pass!")
    account = made(script, tmp_path, SynthesisSettings(count=1, drafts=1, oracle_runs=1))
    assert account.outcomes == {"failed: judge": 1} and account.kept == 0 and not tasks_in(tmp_path)
    assert script.asked.count("judge") == 3
    again = Script(answer())
    assert made(again, tmp_path, SynthesisSettings(count=1, drafts=1, oracle_runs=1)).outcomes == {"kept": 1}
    assert again.asked == ["build", "judge"]


def test_a_model_that_cannot_be_reached_is_a_failure_of_its_seed(tmp_path):
    account = made(Script(answer(), drafts=EngineError("refused")), tmp_path)
    assert account.drafts == 0 and account.seeds_failed == {"engine": 1} and "engine 1" in table(account)


@needs_bubblewrap
def test_a_second_call_asks_for_nothing_that_is_finished(tmp_path):
    both = SynthesisSettings(count=2, oracle_runs=1)
    assert made(Script(answer()), tmp_path, both).kept == 2
    script = Script(answer())
    assert made(script, tmp_path, both).kept == 2 and script.asked == []
    with pytest.raises(UserError, match="other models, prompts or seed"):
        made(script, tmp_path, SynthesisSettings(count=2, seed=1))


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from synthetic_tasks import Script, answer, kind_of
from test_terminal_synthesis import SynthesisSettings, made

class Slow(Script):
    def _answer(self, request):
        if kind_of(request) == "build" and "build" in self.asked:
            Path({out!r}, "waits").touch()
            time.sleep(60)
        return super()._answer(request)

made(Slow(answer()), Path({out!r}), SynthesisSettings(count=2, in_flight=1, oracle_runs=1))
"""


@needs_bubblewrap
def test_after_a_kill_only_what_was_not_finished_is_asked_for(tmp_path):
    """Killed where the second candidate's first answer is awaited, and once more between a task and its line in the ledger."""
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "waits").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    ledger = tmp_path / "ledger.jsonl"
    begin, first = ledger.read_bytes().splitlines()
    ledger.write_bytes(begin + b"\n" + first[:40])  # torn, as if the kill had come a moment earlier

    script = Script(answer())
    account = made(script, tmp_path, SynthesisSettings(count=2, in_flight=1, oracle_runs=1))
    assert account.outcomes == {"kept": 2} and script.asked == ["build", "judge"]
    assert len(tasks_in(tmp_path)) == 2


@needs_bubblewrap
def test_the_example_in_the_prompt_is_itself_fit():
    task = assemble("example", parse_files(_EXAMPLE), {})
    assert not [finding for finding in decided(task).values() if finding.mark == "fail"]
    found = asyncio.run(admitted(task))
    assert found.admitted, found
