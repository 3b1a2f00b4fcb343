"""Mid-training: context extension in steps on repositories and retrieval documents (GLM-5 report, section 2.3)."""

from __future__ import annotations

from pathlib import Path

from arcforge.core.config import Config
from arcforge.data.corpus import Corpus
from arcforge.data.mixing import GeneratedRows, Mixture, StoredRows
from arcforge.data.packing import pack
from arcforge.data.pieces import Pieces, tokenised
from arcforge.data.repositories import repositories
from arcforge.data.retrieval import filler_lines, training_row
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.schedule import linear
from arcforge.train.context import Context, read_checkpoint
from arcforge.train.loop import Plan, run
from arcforge.train.objectives import language_modelling
from arcforge.train.pretrain import ROUTER_BIAS_RATE, drill_rows

FILLER_FILES = 60


class MidtrainConfig(Config):
    """One phase of tokens[i] at lengths[i]; retrieval, repositories: shares of rows, copying drills are the rest."""

    lengths: tuple[int, ...] = (512, 1024, 2048)
    tokens: tuple[int, ...] = (600_000, 500_000, 400_000)
    batch_tokens: int = 4096
    lr: float = 2e-3
    last_lr: float = 5e-4
    retrieval: float = 0.5
    repositories: float = 0.35
    mtp_steps: int = 3
    mtp_weight: float = 0.1
    mtp_rows: float = 0.25


def midtrain(config: MidtrainConfig, source: Path, corpus: Corpus, context: Context) -> GlmMoeDsa:
    """Linear decay over all phases together; each phase keeps its own state, so a resumed stage goes on inside it."""
    model = read_checkpoint(source)
    optimizer = MuonAdamW(model, matrix_specs(model), OptimizerConfig(lr=config.lr))
    mtp = {"mtp_steps": config.mtp_steps, "mtp_weight": config.mtp_weight, "mtp_rows": config.mtp_rows}
    steps = [max(1, tokens // config.batch_tokens) for tokens in config.tokens]
    for i, length in enumerate(config.lengths):
        before = sum(steps[:i])
        plan = Plan(
            f"midtrain-{length}",
            steps[i],
            max(1, config.batch_tokens // length),
            lambda step, before=before: linear(before + step, sum(steps), 1.0, config.last_lr / config.lr),
            lambda: model.update_router_bias(ROUTER_BIAS_RATE),
        )
        rows = midtrain_rows(config, corpus, context, length)
        objective = lambda batch: language_modelling(model, batch, sparse=False, **mtp)  # noqa: E731
        state = context.state_file(f"{i}-{length}")
        run(plan, model, objective, optimizer, rows, state, context.sink, context.save_seconds)
    return model


def midtrain_rows(config: MidtrainConfig, corpus: Corpus, context: Context, length: int) -> Mixture:
    """Repository-level sequences, retrieval documents and drills at one length."""
    tokenizer, pieces = context.tokenizer, Pieces(context.tokenizer)
    stride = max(1, len(corpus.train) // FILLER_FILES)
    filler = filler_lines([document.text for document in corpus.train[::stride]], tokenizer)
    packed = pack(tokenised(repositories(corpus.train), tokenizer), length, "best_fit", tokenizer.pad_id)
    sources = {
        "repositories": StoredRows(packed, context.seed),
        "retrieval": GeneratedRows(
            lambda rng: training_row(rng, pieces, length, filler), length, f"retrieval-{length}", context.seed
        ),
        "drills": drill_rows(context, length),
    }
    rest = max(0.0, 1 - config.retrieval - config.repositories)
    return Mixture(sources, {"repositories": config.repositories, "retrieval": config.retrieval, "drills": rest})
