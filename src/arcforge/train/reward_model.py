"""The outcome reward model: the trunk with a scalar head, trained on preference pairs (GLM-5 report, section 3.4)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.core.matrix import MatrixSpec
from arcforge.core.metrics import Progress
from arcforge.core.tasks import Conversation
from arcforge.data.conversations import tokens_of
from arcforge.model.reward import RewardModel
from arcforge.model.specs import matrix_specs
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.schedule import warmup_cosine
from arcforge.train.context import Context, read_checkpoint

Pair = tuple[Conversation, Conversation]
HELD_OUT = 8


class RewardModelConfig(Config):
    """steps of batch_pairs preference pairs."""

    steps: int = 60
    batch_pairs: int = 16
    lr: float = 1e-3


def train_reward_model(
    config: RewardModelConfig, pairs: Sequence[Pair], source: Path, context: Context
) -> tuple[RewardModel, float]:
    """Bradley-Terry: maximise log sigmoid(score(good) - score(bad)). Returns the model and its accuracy on the pairs
    that were held out, one of HELD_OUT. UserError: too few pairs for that."""
    trunk = read_checkpoint(source)
    model = RewardModel(trunk)
    specs = {f"trunk.{name}": spec for name, spec in matrix_specs(trunk).items()}
    specs["score.weight"] = MatrixSpec("vector", group="reward")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(specs[name].group in ("trunk", "reward"))
    encoded = [(_ids(good, context.tokenizer), _ids(bad, context.tokenizer)) for good, bad in pairs]
    kept = len(encoded) // HELD_OUT
    held, train = encoded[:kept], encoded[kept:]
    if not held:
        raise UserError(f"reward model: {len(pairs)} pairs; at least {HELD_OUT} are needed, of which one is held out")
    optimizer = MuonAdamW(model, specs, OptimizerConfig(lr=config.lr))
    rng, device = random.Random(context.seed), model.score.weight.device
    progress = Progress("reward-model", config.steps)
    for step in range(config.steps):
        good, bad = zip(*rng.sample(train, min(config.batch_pairs, len(train))), strict=True)
        margin = model(*padded(good, device)) - model(*padded(bad, device))
        loss = -F.logsigmoid(margin).mean()
        loss.backward()
        optimizer.step(warmup_cosine(step, config.steps, max(1, config.steps // 10), 0.1))
        context.sink.write({"stage": "reward-model", "step": step + 1, "loss": float(loss.detach())})
        progress.update(1, loss=float(loss.detach()))
    progress.close()
    model.eval()
    good, bad = zip(*held, strict=True)
    with torch.no_grad():
        accuracy = float((model(*padded(good, device)) > model(*padded(bad, device))).float().mean())
    return model, accuracy


def padded(rows: Sequence[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids int64 [B, T] and lengths int64 [B]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


def _ids(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    return tokens_of(conversation, tokenizer).ids.tolist()
