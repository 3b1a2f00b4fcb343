"""DeepSeek sparse attention on the dense model: indexer warm-up, then sparse adaptation (GLM-5 report, section 2.1.1)."""

from __future__ import annotations

from pathlib import Path

from arcforge.core.config import Config
from arcforge.data.corpus import Corpus
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.schedule import linear
from arcforge.train.context import Context, read_checkpoint
from arcforge.train.freezing import trainable
from arcforge.train.loop import Plan, run
from arcforge.train.midtrain import MidtrainConfig, midtrain_rows
from arcforge.train.objectives import indexer_warmup, language_modelling


class SparseConfig(Config):
    """Steps of batch_tokens at the given lengths; warm-up trains the indexers alone with dense attention. freeze_indexer: in
    SFT and all RL stages after this one (GLM-5 report, section 3.2); otherwise they go on learning there by their KL."""

    warmup_steps: int = 80
    warmup_length: int = 1024
    warmup_lr: float = 5e-3
    steps: int = 40
    length: int = 2048
    lr: float = 5e-4
    freeze_indexer: bool = True
    batch_tokens: int = 4096


def sparse(config: SparseConfig, data: MidtrainConfig, source: Path, corpus: Corpus, context: Context) -> GlmMoeDsa:
    """Warm-up: lr decays linearly to a twentieth (the report's 5e-3 to 2e-4); adaptation: constant lr, mid-training data."""
    model = read_checkpoint(source)
    specs = matrix_specs(model)
    with trainable(model, specs, {"indexer"}):
        optimizer = MuonAdamW(model, specs, OptimizerConfig(lr=config.warmup_lr, weight_decay=0.0, muon=False))
        plan = Plan(
            "sparse-warmup",
            config.warmup_steps,
            max(1, config.batch_tokens // config.warmup_length),
            lambda step: linear(step, config.warmup_steps, 1.0, 0.05),
        )
        rows = midtrain_rows(data, corpus, context, config.warmup_length)
        state = context.state_file("0-warmup")
        objective = lambda batch: indexer_warmup(model, batch)  # noqa: E731
        run(plan, model, objective, optimizer, rows, state, context.sink, context.save_seconds)
    with trainable(model, specs, {"trunk", "indexer"}):
        optimizer = MuonAdamW(model, specs, OptimizerConfig(lr=config.lr))
        plan = Plan("sparse-adapt", config.steps, max(1, config.batch_tokens // config.length), lambda step: 1.0)
        rows = midtrain_rows(data, corpus, context, config.length)
        objective = lambda batch: language_modelling(model, batch, sparse=True, indexer_loss=True)  # noqa: E731
        state = context.state_file("1-adapt")
        run(plan, model, objective, optimizer, rows, state, context.sink, context.save_seconds)
    return model
