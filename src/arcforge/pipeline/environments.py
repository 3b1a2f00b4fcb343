"""`arcforge env`: environments listed, shown, made, checked, run and written out, as text for the terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from arcforge import __version__
from arcforge.agents.loop import Budget, run_agent
from arcforge.agents.policies import Summary, policy
from arcforge.clients.openai import ChatCompleter, endpoint
from arcforge.core.errors import BoundaryError, UserError
from arcforge.core.messages import Sampling
from arcforge.core.runs import atomic_write
from arcforge.core.tasks import Split
from arcforge.envs.admission import Admission
from arcforge.envs.registry import FAMILIES, WITH_PATH, family
from arcforge.envs.terminal.admission import ORACLE_SECONDS, SOLVE, admit
from arcforge.envs.terminal.generate import DIFFICULTIES, generate, in_turn
from arcforge.envs.terminal.generate import FAMILIES as GENERATORS
from arcforge.envs.terminal.handwritten.collection import handwritten
from arcforge.envs.terminal.harbor import HarborTask, NetworkMode, read_task, write_task
from arcforge.envs.terminal.sandboxes import SandboxRunner
from arcforge.envs.terminal.task import TerminalTask
from arcforge.envs.terminal.verdict import verdict
from arcforge.rollout.atif_contexts import atif_contexts
from arcforge.sandbox.images import Engine
from arcforge.view.table import table

ORACLE, NOTHING = "oracle", "nop"
HANDWRITTEN, ALL = "handwritten", "all"
NETWORKS = ("no-network", "public")
AGENT_SECONDS = 900.0  # where the task does not say
LAST_CALL_SECONDS = 120.0  # for the call in which the agent's time ends


def listing() -> str:
    """Every registered family with its domains, then the generators of terminal tasks."""
    rows = []
    for name, make in FAMILIES.items():
        made = make(0)
        rows.append([name, ", ".join(made.domains)])
    lines = [table(["family", "domains"], rows), ""]
    lines.append(f"with a path: {', '.join(WITH_PATH)}; levels: math:2-4; tools: math+python")
    lines.append(
        f"terminal tasks: {len(GENERATORS)} generators at difficulties 1 to {len(DIFFICULTIES)}, {len(handwritten())} written by hand"
    )
    return "\n".join(lines)


def shown(name: str, index: int, split: str, seed: int) -> str:
    """UserError for an unknown family or split."""
    if split not in get_args(Split):
        raise UserError(f"split {split!r}: choose one of {', '.join(get_args(Split))}")
    task = family(name, seed).task(cast(Split, split), index)
    lines = [
        f"{task.task_id}   {task.family}/{task.domain}   at most {task.max_turns} turns of {task.max_tokens} tokens"
    ]
    lines += [f"\n[{message.role}]\n{message.content}" for message in task.messages]
    lines += ["\n[tools]"] if task.tools else []
    lines += [
        f"{spec.name}({', '.join(spec.parameters.get('properties', {}))})  {spec.description}".rstrip()
        for spec in task.tools
    ]
    return "\n".join(lines)


def validated(paths: Sequence[Path], oracle_runs: int, in_flight: int, podman: bool = False) -> tuple[str, int]:
    """(table, how many are not fit). podman: images are built by it."""
    tasks = [read_task(folder) for folder in _task_folders(paths)]

    async def everything() -> list[Admission]:
        gate = asyncio.Semaphore(in_flight)
        async with SandboxRunner(Engine() if podman else None) as runner:

            async def one(task: HarborTask) -> Admission:
                async with gate:
                    return await admit(task, runner, oracle_runs)

            return await asyncio.gather(*map(one, tasks))

    found = asyncio.run(everything())
    rows = [
        [task.name, "fit" if a.admitted else a.reason, f"{a.seconds:.1f} s"]
        for task, a in zip(tasks, found, strict=True)
    ]
    unfit = sum(not admission.admitted for admission in found)
    return f"{table(['task', 'verdict', 'time'], rows)}\n{len(tasks) - unfit} of {len(tasks)} are fit", unfit


def run_task(
    folder: Path, model: str, name: str, context: str, trajectory: Path | None, podman: bool = False
) -> tuple[str, bool]:
    """(what came of it, whether there is a reward). trajectory: a folder for the run of a model, as ATIF. podman: it builds the
    image."""
    task = read_task(folder)

    async def whole() -> tuple[str, bool]:
        async with SandboxRunner(Engine() if podman else None) as runner:
            return await _run_task(task, runner, model, name, context, trajectory)

    try:
        return asyncio.run(whole())
    except BoundaryError as error:
        return f"no reward: {error.boundary}: {error}", False


async def _run_task(
    task: HarborTask, runner: SandboxRunner, model: str, name: str, context: str, trajectory: Path | None
) -> tuple[str, bool]:
    if model not in (ORACLE, NOTHING):
        completer = await endpoint(model, name)
        try:
            return await _played(task, runner, completer, context, trajectory)
        finally:
            await completer.close()
    async with runner.image(task) as image, image.attempt() as attempt:
        if model == ORACLE:
            done = await attempt.act(SOLVE, task.part("solution"), ORACLE_SECONDS)
            if done.exit_code:
                return f"no reward: the solution ended with {done.exit_code}: {done.stderr[-300:]}", False
        reward = verdict(await attempt.verify()).reward
    return f"{task.name}: {model}: reward {reward}", True


async def _played(
    task: HarborTask, runner: SandboxRunner, completer: ChatCompleter, context: str, trajectory: Path | None
) -> tuple[str, bool]:
    """By the agent loop, within the task's own time for its agent."""
    seconds = task.config.agent.timeout_sec or AGENT_SECONDS
    problem = TerminalTask(task, runner, task.name)
    contexts = policy(context, **({"completer": completer} if context == Summary.name else {}))
    episode = await problem.open()
    try:
        deadline = asyncio.get_running_loop().time() + seconds + LAST_CALL_SECONDS
        budget = Budget(seconds=seconds)
        run = await run_agent(problem, episode, completer, contexts, Sampling(), deadline, budget=budget)
        reward = (await episode.grade(run.messages)).reward
    finally:
        await episode.close()
    told = f"{task.name}: {run.stop_reason} after {run.turns} turns: reward {reward}"
    if trajectory is not None:
        documents = atif_contexts(
            run.messages, contexts.events, session_id=task.name, agent="arcforge", version=__version__,
            model=completer.model, tools=problem.tools, extra={"reward": reward, "stop_reason": run.stop_reason},
        )  # fmt: skip
        for file, document in documents.items():
            atomic_write(trajectory / file, json.dumps(document, indent=1) + "\n")
    return told, reward is not None


def exported(out: Path, name: str, count: int, seed: int, network: str = NETWORKS[0]) -> str:
    """UserError for an unknown generator or network."""
    if network not in NETWORKS:
        raise UserError(f"network {network!r}: choose one of {', '.join(NETWORKS)}")
    if name == HANDWRITTEN:
        tasks = handwritten()
    else:
        turns = (in_turn(number, tuple(GENERATORS) if name == ALL else (name,)) for number in range(count))
        tasks = [generate(kind, seed + turn, difficulty) for kind, turn, difficulty in turns]
    for task in tasks:
        write_task(task.with_network(cast(NetworkMode, network)), out)
    return f"{len(tasks)} tasks in {out}"


def _task_folders(paths: Sequence[Path]) -> list[Path]:
    """UserError for a path without a task."""
    found: list[Path] = []
    for path in paths:
        below = [path] if (path / "task.toml").exists() else sorted(p.parent for p in path.glob("*/task.toml"))
        if not below:
            raise UserError(f"{path}: no task.toml here or one folder below")
        found += below
    return found
