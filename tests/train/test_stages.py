"""Supervised fine-tuning and the reward model as stages: what changes, what must not, and what they refuse."""

import random

import pytest
import torch

from arcforge.core.errors import UserError
from arcforge.core.messages import Message, Thinking
from arcforge.core.runs import read_jsonl
from arcforge.core.tasks import Conversation
from arcforge.envs.reason.family import ReasonFamily
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.specs import matrix_specs
from arcforge.train.reward_model import RewardModelConfig, train_reward_model
from arcforge.train.sft import SftConfig, sft

WORDS = "the red blue fox cat to".split()


@pytest.mark.parametrize("frozen", [True, False])
def test_sft_trains_trunk_and_mtp_and_the_indexer_where_it_is_not_frozen(source, context, frozen):
    small = SftConfig(conversations=24, tokens=8 * 1024, batch_tokens=1024, length=256, lr=1e-2)
    small = small.model_copy(update={"weights": (1.0,)})
    model, report = sft(small, [ReasonFamily()], source, context, freeze_indexer=frozen)
    before, specs = dict(load_checkpoint(source).named_parameters()), matrix_specs(model)
    for name, parameter in model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        learns = specs[name].group != "indexer" or not (frozen or name.startswith("mtp."))
        assert changed == learns, name
    assert 0.9 < report["beyond_topk_share"] <= 1.0, "prompts are longer than the model's top-k"
    rows = read_jsonl(context.folder.parent / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9)) and rows[-1]["nll"] < rows[0]["nll"] - 0.5
    assert all(("indexer_kl" in row) is not frozen for row in rows)


def test_sft_says_when_every_conversation_is_too_long(source, context):
    short = SftConfig(conversations=4, length=16).model_copy(update={"weights": (1.0,)})
    with pytest.raises(UserError, match=r"sft\.length=16.*reason"):
        sft(short, [ReasonFamily()], source, context)


def judged(rng: random.Random, word: str) -> Conversation:
    """A reply whose quality is one word at any place."""
    reply = rng.choices(WORDS, k=5)
    reply.insert(rng.randrange(6), word)
    messages = (
        Message(role="user", content=" ".join(rng.choices(WORDS, k=4))),
        Message(role="assistant", content=" ".join(reply)),
    )
    return Conversation(messages=messages, thinking=Thinking(enabled=False))


def test_the_reward_model_learns_pairs_that_one_word_tells_apart(source, context, rng):
    pairs = [(judged(rng, "yes"), judged(rng, "no")) for _ in range(160)]
    settings = RewardModelConfig(steps=40, batch_pairs=16, lr=4e-3)
    model, accuracy = train_reward_model(settings, pairs, source, context)
    assert accuracy > 0.9
    before, specs = dict(load_checkpoint(source).named_parameters()), matrix_specs(model.trunk)
    for name, parameter in model.trunk.named_parameters():
        if specs[name].group in ("indexer", "mtp"):
            assert torch.equal(parameter, before[name]), name
    assert model.score.weight.abs().max() > 0


@pytest.mark.parametrize("count", [0, 7])
def test_a_reward_model_needs_pairs_on_both_sides(source, context, rng, count):
    pairs = [(judged(rng, "yes"), judged(rng, "no")) for _ in range(count)]
    with pytest.raises(UserError, match=f"{count} pairs; at least 8"):
        train_reward_model(RewardModelConfig(steps=1), pairs, source, context)
