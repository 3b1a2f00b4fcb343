"""Third parties' agents as processes, working on the swe family's files behind the gateway's door."""

import asyncio
import json
import os
import re
import shlex
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.scripted import ScriptedTokenEngine
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import turn_seed
from arcforge.envs.registry import family
from arcforge.envs.swe.family import SweFamily
from arcforge.rl.gateway import Gateway
from arcforge.rl.gateway_http import GatewayDoor, serve
from arcforge.rl.verify import turns
from arcforge.rollout.attempt import attempt
from arcforge.rollout.program import ProgramAgent, check_workspace, instruction, split

TOKENIZER = Tokenizer.train(["the tests fail, fix the code, repair it and go on; sed cat py run command"] * 4, 340)
HERE = Path(__file__).parent
SDK = f"{sys.executable} {HERE / 'sdk_agent.py'} {{instruction}}"


def plain(mode, argument=1):
    """-S: nothing but the standard library, and a start in a few milliseconds."""
    return f"{sys.executable} -S {HERE / 'plain_agent.py'} {mode} {argument}"


def ids(*parts):
    return [i for p in parts for i in ([TOKENIZER.id(p)] if p in TOKENIZER.control else TOKENIZER.encode(p))]


def call(command):
    return ids("<tool_call>", "run", "<arg_key>", "command", "</arg_key>", "<arg_value>", command, "</arg_value>",
               "</tool_call>", "<|observation|>")  # fmt: skip


SAID = ids("go on", "<|user|>")


class Played:
    """What a test saw: trajectories in order, every prompt, every sampling."""

    def __init__(self, answer):
        self.samplings = []
        self.engine = ScriptedTokenEngine(self._answer, version=3)
        self._fn = answer
        self.trajectories = []

    def _answer(self, prompt, sampling):
        self.samplings.append(sampling)
        return self._fn(prompt, sampling)

    @property
    def one(self):
        (trajectory,) = self.trajectories
        return trajectory


@asynccontextmanager
async def door(engine, max_context=4000):
    gateway = Gateway(engine, TOKENIZER, max_context)
    opened = GatewayDoor(gateway)
    async with serve(opened):
        yield gateway, opened


def play(command, answer, count=1, timeout=90.0, max_context=4000):
    """`count` rollouts at once, of the tasks 0, 1, .. of the swe family."""
    played = Played(answer)

    async def work():
        swe = SweFamily(0)
        async with door(played.engine, max_context) as (gateway, opened):
            run = partial(attempt, agent=ProgramAgent(split(command), opened))
            made = (
                run(
                    swe.task("train", i), gateway,
                    rollout_id=f"swe-{i}", seed=11 + i, temperature=0.8, top_p=0.95, timeout=timeout,
                )
                for i in range(count)
            )  # fmt: skip
            played.trajectories = await asyncio.gather(*made)
        await swe.close()

    asyncio.run(asyncio.wait_for(work(), 120))
    return played


def repair():
    """Turns that repair task 0: it looks, edits, and says that it is done."""
    repository = SweFamily(0).task("train", 0).repository
    bug, file = repository.bug, repository.bug_file
    edit = f"sed -i 's/return {bug.shown}/return {bug.right}/' {file}".replace("*", r"\*", 1)
    script = [call(f"cat {file}"), call(edit), SAID]
    return lambda prompt, sampling: script[list(prompt).count(TOKENIZER.id("<|assistant|>")) - 1]


def test_an_unmodified_sdk_agent_repairs_a_task_and_every_token_is_recorded():
    played = play(SDK, repair())
    trajectory, prompts = played.one, played.engine.prompts
    assert trajectory.failure is None and trajectory.reward == 1.0 and trajectory.stop_reason == "exited"
    assert [s.source for s in trajectory.spans] == ["prompt", "model"] * 3
    assert trajectory.ids == prompts[2] + SAID, "the record is what the engine read and sampled, and nothing else"
    text = TOKENIZER.decode(trajectory.ids)
    assert "you repair code with one tool" in text and "def " in text, "its own prompt, and what its tool answered"
    assert prompts[0][-1] == TOKENIZER.id("</think>"), "the task does not think, so the program does not"
    assert [(s.temperature, s.top_p, s.max_tokens) for s in played.samplings] == [(0.8, 0.95, 120)] * 3
    assert [s.seed for s in played.samplings] == [turn_seed(11, turn) for turn in range(3)]
    counted = {name: trajectory.metrics[name] for name in ("turns", "tool_calls", "forks")}
    assert counted == {"turns": 3, "tool_calls": 2, "forks": 1}
    assert trajectory.metrics["prompt_tokens"] == sum(map(len, prompts))
    assert 0 < trajectory.metrics["model_seconds"] < trajectory.metrics["seconds"]


def test_the_task_of_an_agent_that_does_nothing_useful_is_graded_as_it_stands():
    trajectory = play(plain("talk", 2), lambda prompt, sampling: SAID).one
    assert trajectory.failure is None and trajectory.reward == 0.0 and trajectory.stop_reason == "exited"


def test_one_that_dies_after_it_worked_is_graded_and_the_end_is_told():
    trajectory = play(plain("crash", 1), lambda prompt, sampling: SAID).one
    assert trajectory.failure is None and trajectory.reward == 0.0 and trajectory.stop_reason == "died"
    assert trajectory.info["problem"].endswith("ended with code 1")
    assert "SystemError: segmentation of the mind" in trajectory.info["output"]


def test_one_that_a_signal_ended_is_a_failure_whatever_it_did_before():
    trajectory = play(plain("signal", 1), lambda prompt, sampling: SAID).one
    assert trajectory.failure.boundary == "agent" and trajectory.reward is None and trajectory.spans
    assert "was ended by signal 9: about to die" in trajectory.failure.reason


def test_the_instruction_is_where_the_command_wants_it():
    """As an argument (`SDK`), on stdin (`plain`), or as a file."""
    script = 'exec "$0" -S "$1" talk 1 < {instruction_file}'
    command = shlex.join(["sh", "-c", script, sys.executable, str(HERE / "plain_agent.py")])
    trajectory = play(command, lambda prompt, sampling: SAID).one
    assert trajectory.failure is None
    assert instruction(SweFamily(0).task("train", 0)) in TOKENIZER.decode(trajectory.ids)


def test_a_program_has_a_home_of_its_own_and_no_key_of_the_user(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    trajectory = play(plain("tell", 1), lambda prompt, sampling: SAID).one
    seen = json.loads(trajectory.info["output"])
    assert "WANDB_API_KEY" not in seen and seen["PATH"] == os.environ["PATH"]
    assert seen["HOME"] != os.environ["HOME"] and not Path(seen["HOME"]).exists(), "gone with the rollout"
    assert seen["OPENAI_BASE_URL"] == seen["ANTHROPIC_BASE_URL"] + "/v1" and seen["OPENAI_API_KEY"]


FAILING = {
    plain("crash", 0): "ended with code 1 before the model had said anything.*segmentation of the mind",
    plain("nothing"): "ended with code 0 before the model had said anything",
    plain("refused"): r"its call refused \(stop: not supported.*status 400",
    f"{sys.executable} -c 'import os; os.kill(os.getpid(), 11)'": "ended with code -11",
}


@pytest.mark.parametrize("command", FAILING)
def test_one_that_never_heard_the_model_is_a_failure_and_no_score(command):
    trajectory = play(command, lambda prompt, sampling: SAID).one
    assert trajectory.failure.boundary == "agent" and trajectory.reward is None and not trajectory.spans
    assert re.search(FAILING[command], trajectory.failure.reason), trajectory.failure.reason


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")
def test_one_that_hangs_is_ended_with_its_children_at_the_timeout(tmp_path):
    for timeout in (2.0, 10.0, 50.0):  # by which it has come to its work, also where the machine is busy
        started = time.monotonic()
        trajectory = play(plain("hang", tmp_path / "pids"), lambda prompt, sampling: SAID, timeout=timeout).one
        assert time.monotonic() - started < timeout + 10
        if (tmp_path / "pids").exists():
            break
    assert trajectory.failure.boundary == "timeout" and trajectory.reward is None
    assert "did not end within" in trajectory.failure.reason and "thinking very hard" in trajectory.failure.reason
    assert trajectory.spans, "what was sampled until then stays on record"
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 and all(map(gone, pids))


def test_an_engine_that_fails_is_never_the_agents_fault():
    def fails(prompt, sampling):
        raise EngineError("connection reset")

    trajectory = play(plain("patient"), fails).one
    assert trajectory.failure.boundary == "engine" and trajectory.reward is None
    assert "connection reset; then" in trajectory.failure.reason and "ended with code 0" in trajectory.failure.reason
    failures = []

    def fails_once(prompt, sampling):
        if not failures:
            failures.append(1)
            raise RuntimeError("out of memory")
        return SAID

    trajectory = play(plain("patient"), fails_once).one
    assert trajectory.failure is None and trajectory.reward == 0.0, "the second call was answered"


def test_helpers_of_an_agent_are_forks_of_one_record():
    played = play(plain("forks"), lambda prompt, sampling: SAID)
    trajectory = played.one
    assert trajectory.metrics["forks"] == 3 and trajectory.metrics["turns"] == 4
    read = [(turn.prompt_tokens, turn.output_tokens) for turn in turns(trajectory)]
    assert sorted(read) == sorted((len(prompt), len(SAID)) for prompt in played.engine.prompts)


def test_twenty_at_once_are_kept_apart():
    """Each is answered with its own seed's number and tells its model what it heard; no record holds another's."""

    def answer(prompt, sampling):
        return ids(f"seed {sampling.seed}", "<|user|>")

    played = play(plain("talk", 3), answer, count=20)
    assert all(t.failure is None and t.stop_reason == "exited" for t in played.trajectories)
    for i, trajectory in enumerate(played.trajectories):
        said = [TOKENIZER.decode(span.ids[:-1]) for span in trajectory.spans if span.source == "model"]
        assert said == [f"seed {turn_seed(11 + i, turn)}" for turn in range(3)]
        assert trajectory.ids[: len(trajectory.ids) - len(trajectory.spans[-1].ids)] in played.engine.prompts


def test_a_full_context_ends_an_agent_like_any_other_mistake():
    trajectory = play(plain("talk", 40), lambda prompt, sampling: SAID, max_context=120).one
    assert trajectory.failure is None and trajectory.reward == 0.0 and trajectory.stop_reason == "died"
    assert "HTTP Error 400" in trajectory.info["output"] and len(trajectory.ids) <= 120


def test_a_proxy_that_the_command_names_is_passed_by():
    command = f"env http_proxy=http://127.0.0.1:9 {plain('talk', 1)}"
    assert play(command, lambda prompt, sampling: SAID).one.failure is None


def test_a_command_or_a_family_that_cannot_be_is_refused_in_one_line():
    for command, said in {
        "no-such-agent --fast": "no such program",
        "agent 'x": "No closing quotation",
        " ": "no such",
    }.items():
        with pytest.raises(UserError, match=said):
            split(command)
    program, *rest = split(f"{shlex.quote(os.path.relpath(sys.executable))} -c 'a b'")
    assert os.path.isabs(program) and rest == ["-c", "a b"]
    with pytest.raises(UserError, match="the tasks of reason have no files"):
        asyncio.run(check_workspace(family("reason")))
    asyncio.run(check_workspace(family("swe")))
