"""The agentic RL stage: engines, orchestrator and trainer as processes (GLM-5 report, section 4.1)."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from pathlib import Path

import torch

from arcforge.clients.engines import Servers, engine_control
from arcforge.core.errors import UserError
from arcforge.core.runs import atomic_write
from arcforge.envs.registry import family
from arcforge.launch.local import ComponentError, Launcher, LocalLauncher
from arcforge.launch.ray import RayLauncher, connect
from arcforge.pipeline.job import FamilyShare, Job
from arcforge.pipeline.recipe import Recipe
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.agentic_step import AgenticConfig, TaskConfig
from arcforge.rl.asynchronous import NAME, Place, train, write_evaluations
from arcforge.rl.policy import Policy
from arcforge.rl.publish import latest
from arcforge.rollout.program import check_workspace, split
from arcforge.train.context import read_checkpoint

SOURCE = "reasoning_rl"
"""The stage whose checkpoint this one starts from."""
READY_SECONDS = 120.0
EVALUATOR = "evaluator"
EVALUATION_SECONDS = 3600.0
"""For the versions that still wait when the training is over."""
SPREAD = 1.3  # hashing rollouts over engines is uneven


def run_agentic(work: Workspace) -> dict[str, float]:
    """Start the components, train, stop them in order, write checkpoint, histograms and accounts.

    UserError when a component died: nothing is lost, the same command continues.
    """
    config, folder = work.recipe.agentic_rl, work.folder(NAME)
    place = Place(
        folder=folder,
        trajectories=work.run.trajectories,
        source=work.checkpoint(SOURCE),
        sink=work.sink,
        events=work.events,
        tokenizer=work.tokenizer,
        seed=work.seed(NAME),
    )
    place.stop_file.unlink(missing_ok=True)
    torch.set_num_threads(config.trainer_threads)
    policy = Policy(read_checkpoint(place.source), config.lr, work.recipe.sparse.freeze_indexer)
    try:
        with launcher_of(work.recipe, folder / "logs") as launcher:
            start_orchestrator(launcher, config, place, work, servers(launcher, config, place))
            if config.evaluate_every:
                start_evaluator(launcher, work)
            outcome = train(config, place, policy, launcher)
            place.stop_file.touch()
            launcher.wait("orchestrator", 60.0)
            if config.evaluate_every:
                finish_evaluations(launcher, place)
    except ComponentError as error:
        raise UserError(f"{NAME}: {error.line}; the same command continues") from None
    finally:
        torch.set_num_threads(work.recipe.run.threads)
    atomic_write(folder / "histograms.json", json.dumps(outcome.histograms))
    atomic_write(folder / "accounts.json", json.dumps(outcome.accounts))
    work.context(NAME).finish(policy.model)
    return {"beyond_topk_share": outcome.beyond_topk_share}


def launcher_of(recipe: Recipe, logs: Path) -> Launcher:
    return RayLauncher(logs, recipe.ray) if recipe.ray.address else LocalLauncher(logs)


def check_launcher(recipe: Recipe) -> None:
    """UserError when there is no cluster to run on: known before the first stage, not after hours of training."""
    if recipe.ray.address:
        connect(recipe.ray.address)


def check_agents(recipe: Recipe) -> None:
    """UserError for an agent that is not here, or a family that it cannot work on: known before the first stage."""
    for task in recipe.agentic_rl.tasks:
        if task.agent:
            try:
                if not recipe.ray.address:  # a cluster's nodes look for themselves
                    split(task.agent)
                asyncio.run(check_workspace(family(task.name, recipe.run.seed)))
            except UserError as error:
                raise UserError(f"agentic_rl.tasks: {task.name}: {error}") from None


def servers(launcher: Launcher, config: AgenticConfig, place: Place) -> Servers:
    """The engines: those that the recipe names, each seen well, or processes of our own."""
    if isinstance(config.engines, int):
        return start_engines(launcher, config, place, config.engines)
    named = Servers.read(config.engines)
    unwell = asyncio.run(_unwell(named))
    if unwell:
        raise UserError(f"agentic_rl.engines: no healthy {named.kind} server answers at {', '.join(unwell)}")
    return named


async def _unwell(named: Servers) -> list[str]:
    control = engine_control(named)
    try:
        return [url for url, health in zip(named.urls, await control.health(), strict=True) if health is None]
    finally:
        await control.close()


def start_engines(launcher: Launcher, config: AgenticConfig, place: Place, count: int) -> Servers:
    """`count` server processes on the stage's first weights, all starting at once."""
    running = math.ceil(config.concurrency / count * SPREAD)
    names = [f"engine-{number}" for number in range(count)]
    for name in names:
        port_file, record = (str((place.folder / f"{name}.{kind}").absolute()) for kind in ("port", "jsonl"))
        argv = [sys.executable, "-m", "arcforge.serve.main", str(place.source.absolute())]
        argv += ["--host", launcher.host, "--port", "0", "--port-file", port_file, "--record", record]
        argv += ["--max-running", str(running), "--max-length", str(config.context)]
        # Recomputing every conversation after every update would cost more than generating it.
        argv += ["--stale-prefix", str(config.max_staleness)]
        launcher.start(name, argv, port_file=Path(port_file))
    for name in names:
        launcher.wait_ready(name, lambda name=name: launcher.address(name) is not None, READY_SECONDS)
    return Servers(urls=tuple(f"http://{launcher.address(name)}" for name in names))


def start_orchestrator(
    launcher: Launcher, config: AgenticConfig, place: Place, work: Workspace, engines: Servers
) -> None:
    newest = latest(place.weights)
    base_file = place.folder / "base_version.json"
    if not base_file.exists():
        atomic_write(base_file, json.dumps(0 if newest is None else newest.version))
    job = Job(
        stage=NAME,
        families=tuple(_share(config, task) for task in config.tasks),
        servers=engines,
        tokenizer=place.source.absolute(),
        buffer=place.trajectories.absolute(),
        weights=place.weights.absolute(),
        folder=place.folder.absolute(),
        events=work.run.events.absolute(),
        context=config.context,
        batch=config.groups,
        max_staleness=max(config.staleness_of(task.name) for task in config.tasks),
        concurrency=config.concurrency,
        base_version=json.loads(base_file.read_text()),
        seed=place.seed,
    )
    path = place.folder / "job.json"
    atomic_write(path, job.model_dump_json())
    argv = [sys.executable, "-m", "arcforge.pipeline.orchestrator", str(path.absolute())]
    launcher.start("orchestrator", argv, heartbeat=job.heartbeat("orchestrator"))


def start_evaluator(launcher: Launcher, work: Workspace) -> None:
    arguments = [str(work.run.config.absolute()), str(work.run.path.absolute())]
    launcher.start(EVALUATOR, [sys.executable, "-m", "arcforge.pipeline.pinned_evaluation", *arguments])


def finish_evaluations(launcher: Launcher, place: Place) -> None:
    """Wait for the versions that the evaluator has not come to yet."""
    left = len(place.pinned.waiting())
    if left:
        print(f"{NAME}: {left} version{'s' * (left > 1)} left to evaluate", file=sys.stderr, flush=True)
    launcher.wait(EVALUATOR, EVALUATION_SECONDS)
    write_evaluations(place)


def _share(config: AgenticConfig, task: TaskConfig) -> FamilyShare:
    return FamilyShare(
        name=task.name,
        ratio=task.ratio,
        group_size=task.group_size or config.group_size,
        timeout=task.timeout,
        concurrency=task.concurrency or config.concurrency,
        agent=task.agent,
    )
