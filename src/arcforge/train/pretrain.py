"""Pre-training: next token and MTP on source code at a short context (GLM-5 report, sections 2.1, 2.2 and appendix A)."""

from __future__ import annotations

from pydantic import Field

from arcforge.core.config import Config
from arcforge.data.corpus import Corpus
from arcforge.data.drills import drill
from arcforge.data.mixing import GeneratedRows, Mixture, StoredRows
from arcforge.data.packing import pack
from arcforge.data.pieces import Pieces, tokenised
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.schedule import warmup_cosine
from arcforge.train.context import Context
from arcforge.train.loop import Plan, run
from arcforge.train.objectives import language_modelling

ROUTER_BIAS_RATE = 1e-3
FLOOR = 0.2


class PretrainConfig(Config):
    """tokens in batches of batch_tokens at `length`; drills: share of rows that are copying drills (ours, declared)."""

    tokens: int = 3_000_000
    batch_tokens: int = 4096
    length: int = 256
    lr: float = 4e-3
    drills: float = Field(default=0.3, ge=0, lt=1)
    mtp_steps: int = 3
    mtp_weight: float = 0.3
    mtp_rows: float = Field(default=0.25, gt=0, le=1)
    copying_init: bool = True

    @property
    def steps(self) -> int:
        return max(1, self.tokens // self.batch_tokens)


def pretrain(config: PretrainConfig, model_config: ModelConfig, corpus: Corpus, context: Context) -> GlmMoeDsa:
    """From scratch, with warm-up and cosine decay."""
    model = new_model(model_config, context.seed, config.copying_init).train()
    code = pack(tokenised(corpus.train, context.tokenizer), config.length, "truncate")
    sources = {"code": StoredRows(code, context.seed), "drills": drill_rows(context, config.length)}
    plan = Plan(
        "pretrain",
        config.steps,
        max(1, config.batch_tokens // config.length),
        lambda step: warmup_cosine(step, config.steps, max(1, config.steps // 20), FLOOR),
        lambda: model.update_router_bias(ROUTER_BIAS_RATE),
    )
    mtp = {"mtp_steps": config.mtp_steps, "mtp_weight": config.mtp_weight, "mtp_rows": config.mtp_rows}
    run(
        plan,
        model,
        lambda batch: language_modelling(model, batch, sparse=False, **mtp),
        MuonAdamW(model, matrix_specs(model), OptimizerConfig(lr=config.lr)),
        Mixture(sources, {"code": 1 - config.drills, "drills": config.drills}),
        context.state_file(),
        context.sink,
        context.save_seconds,
    )
    return model


def drill_rows(context: Context, length: int) -> GeneratedRows:
    """Copying drills without end."""
    pieces = Pieces(context.tokenizer)
    return GeneratedRows(lambda rng: drill(rng, pieces, length), length, "drills", context.seed)
