"""`--dry-run`: the resolved recipe, its parameters, tokens, FLOPs, and a measured guess at time and memory."""

from __future__ import annotations

import time

import torch

from arcforge.core.config import dump_toml
from arcforge.model.counts import count, training_flops_per_token
from arcforge.pipeline.recipe import Recipe

BYTES_PER_PARAMETER = 4 * 4  # weights, gradient and two optimizer moments in float32
BASE_MEMORY_MB = 600
EFFICIENCY = 0.35


def describe(recipe: Recipe) -> str:
    """Text for the terminal."""
    counts = count(recipe.model)
    rows = stage_costs(recipe)
    speed = measured_flops(recipe.run.threads) * EFFICIENCY
    lines = [
        dump_toml(recipe),
        f"parameters: {counts.total:,} total, {counts.active:,} active per token, {counts.mtp:,} MTP",
    ]
    lines.append(f"{'stage':<14}{'tokens':>12}{'TFLOPs':>10}{'seconds':>10}")
    for name, tokens, flops in rows:
        lines.append(f"{name:<14}{tokens:>12,}{flops / 1e12:>10.2f}{flops / speed:>10.0f}")
    tokens, flops = sum(r[1] for r in rows), sum(r[2] for r in rows)
    lines.append(f"{'total':<14}{tokens:>12,}{flops / 1e12:>10.2f}{flops / speed:>10.0f}")
    lines.append(f"memory: about {memory_mb(recipe):,.0f} MB")
    return "\n".join(lines)


def stage_costs(recipe: Recipe) -> list[tuple[str, int, float]]:
    """(stage, tokens, FLOPs) of every training stage; RL counts generation as one forward and the update as training."""
    model = recipe.model
    rows: list[tuple[str, int, float]] = []
    mtp = recipe.pretrain.mtp_steps * recipe.pretrain.mtp_rows
    pre = recipe.pretrain
    rows.append(("pretrain", pre.tokens, pre.tokens * training_flops_per_token(model, pre.length, mtp)))
    middle = recipe.midtrain
    mtp = middle.mtp_steps * middle.mtp_rows
    flops = sum(t * training_flops_per_token(model, n, mtp) for n, t in zip(middle.lengths, middle.tokens, strict=True))
    rows.append(("midtrain", sum(middle.tokens), flops))
    dsa = recipe.sparse
    tokens = (dsa.warmup_steps + dsa.steps) * dsa.batch_tokens
    rows.append(("sparse", tokens, tokens * training_flops_per_token(model, dsa.length)))
    rows.append(("sft", recipe.sft.tokens, recipe.sft.tokens * training_flops_per_token(model, recipe.sft.length)))
    for name in ("reasoning_rl", "general_rl", "distill"):
        config = getattr(recipe, name)
        tokens = config.steps * config.prompts * config.group_size * config.context // 3
        rows.append((name, tokens, 4 / 3 * tokens * training_flops_per_token(model, config.context)))
    config = recipe.agentic_rl
    tokens = config.steps * config.groups * config.group_size * config.context // 2
    rows.append(("agentic_rl", tokens, 4 / 3 * tokens * training_flops_per_token(model, config.context)))
    return rows


def memory_mb(recipe: Recipe) -> float:
    """Weights, gradients, moments, and the largest activation: attention scores of one micro-batch."""
    model = recipe.model
    weights = count(model).total * BYTES_PER_PARAMETER / 1e6
    longest = max(*recipe.midtrain.lengths, recipe.sparse.length)
    rows = max(1, recipe.sparse.batch_tokens // longest)
    scores = rows * longest**2 * (model.num_attention_heads + model.index_n_heads) * 4 / 1e6
    return BASE_MEMORY_MB + weights + scores * (model.num_hidden_layers + 1)


def measured_flops(threads: int) -> float:
    """FLOPs per second of a matrix product on this machine, measured for about 0.2 s."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 256), torch.randn(256, 512)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2:
        torch.mm(a, b)
        done += 1
    rate = done * 2 * 2048 * 256 * 512 / (time.perf_counter() - start)
    torch.set_num_threads(before)
    return rate
