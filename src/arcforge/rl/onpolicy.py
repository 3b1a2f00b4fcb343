"""The synchronous, fully on-policy loop of reasoning RL, general RL and distillation: generate with the very weights that
are then updated, in one process, repeatable bit for bit (GLM-5 report, sections 3.2, 3.4, 3.5)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.core.metrics import MetricSink, Progress
from arcforge.core.tasks import Family
from arcforge.core.trajectory import Trajectory
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.optim.schedule import linear
from arcforge.rl import advantages
from arcforge.rl.diagnostics import histograms, merge, step_metrics
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine
from arcforge.rl.orchestrator import choose_index
from arcforge.rl.policy import LAST_LR, ROW_TOKENS, Loss, Policy
from arcforge.rl.samples import Batch, Sample, build_batch, group_samples
from arcforge.rl.state import load_state, save_state
from arcforge.rollout.attempt import attempt
from arcforge.rollout.record import TrajectoryWriter

TASKS = range(1 << 31)
ATTEMPT_SECONDS = 120.0


class OnPolicyConfig(Config):
    """prompts per step, group_size attempts at each; context: most tokens of a conversation."""

    steps: int = 40
    prompts: int = 32
    group_size: int = 8
    lr: float = 1e-3
    context: int = Field(default=512, ge=64)


@dataclass
class Stage:
    """What a run of the loop works on. signal: per step, the advantages or teacher log-probs [N, T] of a batch.
    save_seconds: between two saved states."""

    name: str
    families: Sequence[Family]
    loss: Loss
    signal: Callable[[Batch], np.ndarray]
    folder: Path
    trajectories: Path
    sink: MetricSink
    tokenizer: Tokenizer
    seed: int
    save_seconds: float = 20.0

    @property
    def state_file(self) -> Path:
        return self.folder / "trainer" / "state.pt"


@dataclass
class Result:
    """beyond_topk_share: trained positions with more than topk candidates. histograms: staleness and ratio, merged."""

    beyond_topk_share: float
    histograms: dict


def train(config: OnPolicyConfig, stage: Stage, policy: Policy) -> Result:
    """All steps of the stage, from its state file when one exists."""
    engine = Engine(
        policy.model, EngineConfig(max_running=min(128, config.prompts * config.group_size), max_length=config.context)
    )
    state = load_state(stage.state_file, policy) or {"step": 0, "histograms": {}, "shares": []}
    step, result, shares = state["step"], state["histograms"], state["shares"]
    engine.set_version(step)
    progress, saved = Progress(stage.name, config.steps, done=step), time.monotonic()
    with asyncio.Runner() as runner, closing(TrajectoryWriter(stage.trajectories)) as writer:
        while step < config.steps:
            start = time.monotonic()
            groups = runner.run(_rollouts(config, stage, engine, step))
            generated = time.monotonic()
            batch = build_batch(
                samples_of(groups), max(config.context, ROW_TOKENS), stage.tokenizer.pad_id, "sample_mean"
            )
            scale = linear(step, config.steps, 1.0, LAST_LR)
            update = policy.update(batch, stage.signal(batch), stage.loss, scale)
            members = [t for group in groups for t in group]
            for key, value in histograms(members, step, update.ratios, batch).items():
                result[key] = merge(result.get(key), value)
            step += 1
            engine.set_version(step)
            shares.append(batch.beyond_topk_share(policy.topk))
            for trajectory in members:
                writer.append(trajectory)
            told = step_metrics(groups, batch, update, step - 1)
            row = _record(stage, step, {**told, **update.metrics}, generated - start, time.monotonic() - generated)
            progress.update(1, reward=row["reward"])
            if time.monotonic() - saved >= stage.save_seconds and step < config.steps:
                save_state(stage.state_file, policy, step=step, histograms=result, shares=shares)
                saved = time.monotonic()
        for family in stage.families:
            runner.run(family.close())
    progress.close()
    return Result(float(np.mean(shares)), result)


async def _rollouts(config: OnPolicyConfig, stage: Stage, engine: Engine, step: int) -> list[list[Trajectory]]:
    """One group per prompt, all attempts at once."""
    gateway = Gateway(LocalTokenEngine(engine), stage.tokenizer, config.context)
    pending = []
    for prompt in range(config.prompts):
        number = step * config.prompts + prompt
        family = stage.families[number % len(stage.families)]
        task = family.task("train", choose_index(stage.seed, family.name, number // len(stage.families), TASKS))
        group_id = f"{stage.name}-{number:06d}"
        for member in range(config.group_size):
            rollout_id = f"{group_id}-{member}"
            seed = random.Random(f"{stage.seed}/{rollout_id}").getrandbits(31)
            pending.append(
                attempt(
                    task,
                    gateway,
                    rollout_id=rollout_id,
                    group_id=group_id,
                    attempt=member,
                    seed=seed,
                    timeout=ATTEMPT_SECONDS,
                )
            )
    done = await asyncio.gather(*pending)
    size = config.group_size
    return [list(done[start : start + size]) for start in range(0, len(done), size)]


def samples_of(groups: Sequence[Sequence[Trajectory]]) -> list[Sample]:
    """Groups repaired and scored: (r - mean) / std within each (GLM-5 report, section 3.2). Flat groups carry no gradient
    and are left out, unless every group is flat or groups have one member (distillation)."""
    repaired = [advantages.repair([t for t in group if t.valid], len(group)) for group in groups]
    kept = [group for group in repaired if group is not None]
    if not kept:
        raise UserError("every group of the step lost more than half of its attempts; see failures in trajectories/")
    samples: list[Sample] = []
    for group in kept:
        scores = [a or 0.0 for a in advantages.grpo([t.reward for t in group])]
        if len(group) == 1 or any(scores):
            samples += group_samples(group, scores, len(kept))
    return samples or group_samples(kept[0], [0.0] * len(kept[0]), len(kept))


def _record(stage: Stage, step: int, told: dict[str, float], generate: float, train: float) -> dict:
    row = {"stage": stage.name, "step": step, **told, "generate_seconds": generate, "train_seconds": train}
    stage.sink.write(row)
    return row
