"""A step's losses and limits by family, as the recipe gives them."""

import random

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_model import CONFIG, TOKENIZER

from arcforge.core.errors import UserError
from arcforge.core.trajectory import TokenSpan, Trajectory
from arcforge.model.initialise import new_model
from arcforge.rl.agentic_step import AgenticConfig, TaskConfig, advance
from arcforge.rl.buffer import Group
from arcforge.rl.ledger import Dispatch
from arcforge.rl.policy import Policy

TASKS = (TaskConfig(name="letters"), TaskConfig(name="numbers", loss="grpo_icepop", max_staleness=5))


def group(family: str, number: int, rng: random.Random) -> Group:
    """Two attempts, one of them right, whose recorded log-probs are anything from likely to impossible."""
    group_id = f"{family}-{number}"
    members = []
    for member in range(2):
        prompt, sampled = ([rng.randrange(5, 280) for _ in range(9)] for _ in range(2))
        logprobs = [-rng.random() * 12 for _ in sampled]
        spans = [
            TokenSpan(ids=prompt, source="prompt"),
            TokenSpan(ids=sampled, source="model", logprobs=logprobs, version=0, trained=True),
        ]
        names = {"rollout_id": f"{group_id}-{member}", "group_id": group_id, "family": family, "task_id": group_id}
        members.append(Trajectory(**names, spans=spans, reward=float(member)))
    rollout_ids = tuple(t.rollout_id for t in members)
    dispatch = Dispatch(
        counter=number, group_id=group_id, family=family, index=number, rollout_ids=rollout_ids, version=0
    )
    return Group(dispatch, members)


def test_each_family_is_trained_by_its_loss():
    config = AgenticConfig(tasks=TASKS, synchronous=True, steps=4, context=64)
    assert (config.loss_of("letters"), config.loss_of("numbers"), config.loss_of("others")) == (
        "double_sided",
        "grpo_icepop",
        "double_sided",
    )
    rng = random.Random(1)
    groups = [group(("letters", "numbers")[n % 2], n, rng) for n in range(6)]
    batch, update = advance(config, Policy(new_model(CONFIG, seed=4), 1e-3), groups, 0, TOKENIZER.pad_id)
    numbers = np.array([batch.samples[i].rollout_id.startswith("numbers") for i in update.samples])
    low, high = np.where(numbers, 0.5, 1 - config.eps_low), np.where(numbers, 2.0, 1 + config.eps_high)
    clear = np.abs(update.ratios / low - 1) * np.abs(update.ratios / high - 1) > 1e-6
    inside = (update.ratios > low) & (update.ratios < high)
    np.testing.assert_array_equal(update.kept[clear], inside[clear])
    apart = (update.ratios > 0.2) & (update.ratios < 0.5) | (update.ratios > 2) & (update.ratios < 4)
    assert (apart & numbers).any() and (apart & ~numbers).any(), "ratios that tell the two losses apart"


@pytest.mark.parametrize(
    ("fields", "problem", "told"),
    [
        ({"tasks": TASKS}, UserError, "'grpo_icepop' needs the old policy"),
        ({"loss": "ppo_clip"}, UserError, "'ppo_clip' needs the old policy"),
        ({"loss": "distillation", "synchronous": True}, ValidationError, "not one of agentic RL"),
        ({"tasks": (TASKS[0], TASKS[0])}, ValidationError, "two entries"),
        ({"engines": 0}, ValidationError, "at least one"),
        ({"engines": ("vllm:10.0.0.1:8000",)}, UserError, "write KIND:http://HOST:PORT"),
        ({"evaluate_every": 3, "publish_every": 2}, ValidationError, "multiple of publish_every"),
    ],
)
def test_what_a_stage_cannot_do_is_said_when_the_recipe_is_read(fields, problem, told):
    with pytest.raises(problem, match=told):
        AgenticConfig(**fields)
