"""Supervised fine-tuning on rendered conversations through sparse attention (GLM-5 report, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcforge.core.config import Config
from arcforge.core.errors import UserError
from arcforge.core.tasks import Family
from arcforge.data.conversations import beyond_topk_share, pack_conversations
from arcforge.data.mixing import Mixture, StoredRows
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.optim.schedule import warmup_cosine
from arcforge.train.context import Context, read_checkpoint
from arcforge.train.freezing import trainable
from arcforge.train.loop import Plan, run
from arcforge.train.objectives import language_modelling

FLOOR = 0.1


class SftConfig(Config):
    """conversations per family; weights: share of rows per family, in the order swe, reason, chat, recall."""

    conversations: int = 6000
    tokens: int = 2_000_000
    batch_tokens: int = 4096
    length: int = 512
    lr: float = 2e-3
    weights: tuple[float, float, float, float] = (0.4, 0.3, 0.15, 0.15)
    mtp_steps: int = 1
    mtp_weight: float = 0.1


def sft(
    config: SftConfig, families: Sequence[Family], source: Path, context: Context, freeze_indexer: bool = True
) -> tuple[GlmMoeDsa, dict[str, float]]:
    """Returns the model and {"beyond_topk_share"}: the share of trained positions with more than topk candidates."""
    model = read_checkpoint(source)
    specs = matrix_specs(model)
    sources, shares = {}, []
    for family in families:
        conversations = [family.demonstration(i) for i in range(config.conversations)]
        rows, left_out = pack_conversations(conversations, context.tokenizer, config.length)
        if not len(rows):
            raise UserError(f"sft.length={config.length}: all {left_out} {family.name} conversations are longer")
        sources[family.name] = StoredRows(rows, context.seed)
        shares.append(beyond_topk_share(rows, model.config.index_topk))
    weights = dict(zip(sources, config.weights, strict=True))
    steps = max(1, config.tokens // config.batch_tokens)
    plan = Plan(
        "sft",
        steps,
        max(1, config.batch_tokens // config.length),
        lambda step: warmup_cosine(step, steps, max(1, steps // 20), FLOOR),
    )
    mtp = {"mtp_steps": config.mtp_steps, "mtp_weight": config.mtp_weight, "mtp_rows": 0.25}
    groups = {"trunk", "mtp"} if freeze_indexer else {"trunk", "mtp", "indexer"}
    with trainable(model, specs, groups):
        run(
            plan,
            model,
            lambda batch: language_modelling(model, batch, sparse=True, indexer_loss=not freeze_indexer, **mtp),
            MuonAdamW(model, specs, OptimizerConfig(lr=config.lr)),
            Mixture(sources, weights),
            context.state_file(),
            context.sink,
            context.save_seconds,
        )
    return model, {"beyond_topk_share": weighted(shares, list(weights.values()))}


def weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
