"""admit(task, runner): a task is fit to train on when its oracle passes every time, doing nothing fails, and no probe scores."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from arcforge.core.errors import TaskError, VerifierError
from arcforge.envs.admission import Admission
from arcforge.envs.terminal.harbor import HarborTask
from arcforge.envs.terminal.probes import probes
from arcforge.envs.terminal.sandboxes import SandboxAttempt, SandboxImage, SandboxRunner
from arcforge.envs.terminal.verdict import VerifierRun, verdict

ORACLE_RUNS = 2
ORACLE_SECONDS = 60.0
SOLVE = "bash /solution/solve.sh"


async def admit(task: HarborTask, runner: SandboxRunner, oracle_runs: int = ORACLE_RUNS) -> Admission:
    """SandboxError is the machine's failure and passes through: it says nothing about the task."""
    began = time.monotonic()
    seen = _Seen()
    try:
        async with runner.image(task) as image:
            reason = await _examine(task, image, oracle_runs, seen)
    except TaskError as error:
        reason = f"environment: {error}"
    return Admission(reason, seen.outcomes, time.monotonic() - began, seen.output)


@dataclass
class _Seen:
    """What was run so far."""

    outcomes: dict[str, float | str] = field(default_factory=dict)
    output: str = ""

    async def verify(self, name: str, attempt: SandboxAttempt) -> float | str:
        run = await attempt.verify()
        self.output = run.output
        self.outcomes[name] = outcome = _outcome(run)
        return outcome


async def _examine(task: HarborTask, image: SandboxImage, oracle_runs: int, seen: _Seen) -> str:
    """Why it is not admitted, at the first reason; "" when there is none."""
    solution = task.part("solution")
    if "solve.sh" not in solution:
        return "no solution/solve.sh"
    for run in range(oracle_runs):
        async with image.attempt() as attempt:
            done = await attempt.act(SOLVE, solution, ORACLE_SECONDS)
            outcome = await seen.verify(f"oracle-{run + 1}", attempt)
        if done.exit_code:
            return f"the oracle ended with {done.exit_code}: {done.stderr.strip()[-200:]}"
        if outcome != 1.0:
            return f"the oracle does not pass: {outcome}"
    for name, script in {"nothing": "true", **probes(task)}.items():
        async with image.attempt() as attempt:
            await attempt.act(script)
            outcome = await seen.verify(name, attempt)
        if isinstance(outcome, float) and outcome > 0:
            return f"{name} scores {outcome:g}"
        if name == "nothing" and outcome != 0.0:
            return f"the verifier does not judge an untouched environment: {outcome}"
    return ""


def _outcome(run: VerifierRun) -> float | str:
    try:
        reward = verdict(run).reward
    except VerifierError as error:
        return f"VerifierError: {error}"
    return "no reward" if reward is None else float(reward)
