"""One step of the agentic trainer: from finished groups to the next weights, a function of nothing else but the step's number.

The running trainer (`asynchronous`) and the replay of a run (`replay`) take their steps here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from arcforge.clients.engines import Servers
from arcforge.core.config import Config
from arcforge.optim.schedule import linear
from arcforge.rl import advantages
from arcforge.rl.baselines import cispo, ppo_clip, tis
from arcforge.rl.buffer import Group
from arcforge.rl.losses import LossName, LossOutput, check_loss, double_sided, grpo_icepop
from arcforge.rl.policy import LAST_LR, ROW_TOKENS, Mixture, Policy, Update
from arcforge.rl.samples import Batch, Sample, build_batch, group_samples

SYNCHRONOUS_LOSSES: dict[LossName, Callable[..., LossOutput]] = {
    "grpo_icepop": grpo_icepop,
    "ppo_clip": ppo_clip,
    "tis": tis,
    "cispo": cispo,
}
"""Losses with an old policy, for `synchronous` alone: there it is the policy that sampled."""


class TaskConfig(Config):
    """A task family of the stage (a name of `envs.registry`). ratio: its part of the groups, relative to the others.
    timeout: seconds per rollout. concurrency: its rollouts at once. loss: of its tokens. agent: a command that makes its
    rollouts (`rollout.program`), none for the agent loop. 0 in group_size, concurrency and max_staleness, and no loss, is the
    stage's value."""

    name: str = "swe"
    ratio: float = Field(default=1.0, gt=0)
    group_size: int = Field(default=0, ge=0)
    timeout: float = Field(default=120.0, gt=0)
    concurrency: int = Field(default=0, ge=0)
    max_staleness: int = Field(default=0, ge=0)
    loss: LossName | Literal[""] = ""
    agent: str = ""


class AgenticConfig(Config):
    """tasks: the families, each with its limits. groups of group_size per update. eps_low, eps_high: f is
    zero outside (1 - eps_low, 1 + eps_high). max_staleness: versions a token may lag behind (tau). engines: processes of one
    thread, over which rollouts are spread, or servers that run already and see the run's folder, as "KIND:http://HOST:PORT" of kind
    arcforge, vllm or sglang. trainer_threads: of this process while it trains. reset_optimizer: forget the
    moments after each publication (the report's rule). evaluate_every: steps between evaluations on held-out tasks, which go on
    beside the training under weights that stay as they are; 0 for none. synchronous: a barrier between rollouts and updates with the same
    placement, for comparison."""

    tasks: tuple[TaskConfig, ...] = Field(default=(TaskConfig(),), min_length=1)
    loss: LossName = "double_sided"
    steps: int = 60
    groups: int = 16
    group_size: int = 8
    lr: float = 1e-3
    eps_low: float = 0.8
    eps_high: float = 3.0
    max_staleness: int = Field(default=2, ge=1)
    publish_every: int = Field(default=1, ge=1)
    reset_optimizer: bool = False
    concurrency: int = 128
    engines: int | tuple[str, ...] = 2
    trainer_threads: int = Field(default=1, ge=1)
    context: int = 512
    evaluate_every: int = Field(default=0, ge=0)
    synchronous: bool = False

    @model_validator(mode="after")
    def _check(self) -> AgenticConfig:
        if isinstance(self.engines, int):
            if self.engines < 1:
                raise ValueError("engines: at least one is needed")
        else:
            Servers.read(self.engines)
        if self.evaluate_every % self.publish_every:
            raise ValueError(
                "evaluate_every: only published weights are evaluated; make it a multiple of publish_every"
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("a family has two entries in tasks; give it one with the sum of the ratios")
        losses: list[LossName] = [self.loss_of(name) for name in ("", *names)]
        for loss in losses:
            check_loss(loss, asynchronous=not self.synchronous)
            if loss not in ("double_sided", *SYNCHRONOUS_LOSSES):
                raise ValueError(f"loss {loss!r} is not one of agentic RL; choose double_sided")
        return self

    def loss_of(self, family: str) -> LossName:
        """What trains the tokens of the family's rollouts."""
        for task in self.tasks:
            if task.name == family and task.loss != "":
                return task.loss
        return self.loss

    def staleness_of(self, family: str) -> int:
        """Versions that a rollout of the family may lag behind."""
        if self.synchronous:
            return 0
        task = next((task for task in self.tasks if task.name == family), None)
        return task.max_staleness or self.max_staleness if task is not None else self.max_staleness


def advance(
    config: AgenticConfig, policy: Policy, groups: Sequence[Group], step: int, pad_id: int
) -> tuple[Batch, Update]:
    """Update the policy in place by step number `step`, from 0. groups: in the order in which they were taken."""
    batch = build_batch(samples_of(groups), max(config.context, ROW_TOKENS), pad_id, "token_mean")
    scale = linear(step, config.steps, 1.0, LAST_LR)
    update = policy.update(batch, batch.advantages, mixture(config, groups, batch), scale)
    if config.reset_optimizer and (step + 1) % config.publish_every == 0:
        policy.optimizer.reset_state()
    return batch, update


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name: equal exactly where every bit is."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def samples_of(groups: Sequence[Group]) -> list[Sample]:
    """Advantages r - mean within each group (GLM-5 report, section 3.3); group repair pads by repeating valid members."""
    repaired = [advantages.repair(group.members, group.size) for group in groups]
    kept = [members for members in repaired if members is not None]
    samples: list[Sample] = []
    for members in kept:
        scores = [a or 0.0 for a in advantages.agentic([t.reward for t in members])]
        if any(scores):
            samples += group_samples(members, scores, len(kept))
    if not samples and kept:
        return group_samples(kept[0], [0.0] * len(kept[0]), len(kept))
    return samples


def mixture(config: AgenticConfig, groups: Sequence[Group], batch: Batch) -> Mixture:
    """Each family's loss for the tokens of its rollouts."""
    families = {t.rollout_id: group.dispatch.family for group in groups for t in group.members}
    names: list[LossName] = [config.loss_of(families[sample.rollout_id]) for sample in batch.samples]
    used: list[LossName] = [name for name in get_args(LossName) if name in names]
    of_sample = np.array([used.index(name) for name in names], np.int64)
    return Mixture([partial(_loss, config, name) for name in used], of_sample[batch.rows.document_ids])


def _loss(config: AgenticConfig, name: LossName, *tensors: Tensor) -> LossOutput:
    train_BT, rollout_BT, advantages_BT, mask_BT, weights_BT = tensors
    if name == "double_sided":
        low, high = config.eps_low, config.eps_high
        tensors = (train_BT, rollout_BT, advantages_BT, mask_BT)
        return double_sided(*tensors, eps_low=low, eps_high=high, weights_BT=weights_BT)
    return SYNCHRONOUS_LOSSES[name](train_BT, rollout_BT, advantages_BT, mask_BT, weights_BT=weights_BT)
