"""Evaluation of checkpoints: task capabilities, held-out bits per byte, retrieval by length, MTP acceptance."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from arcforge.chat.tokenizer import Tokenizer
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.core.metrics import Progress
from arcforge.core.runs import atomic_write
from arcforge.core.tasks import Family, Split
from arcforge.core.trajectory import Trajectory
from arcforge.data.baselines import OrderTwoBytes
from arcforge.data.batches import Batch
from arcforge.data.packing import PackedRows, pack
from arcforge.data.pieces import Pieces, tokenised
from arcforge.data.retrieval import evaluation_rows, filler_lines, packed
from arcforge.envs.registry import family
from arcforge.evals.run import Cell, evaluate, summary
from arcforge.evals.stats import wilson
from arcforge.infer.engine import Engine, EngineConfig
from arcforge.launch.local import ComponentError, LocalLauncher
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.trunk import GlmMoeDsa
from arcforge.pipeline.workspace import Workspace
from arcforge.rl.gateway import Gateway
from arcforge.rl.local_engine import LocalTokenEngine
from arcforge.train.objectives import IGNORE, layout_of

CAPABILITIES = {"agentic": "swe", "reasoning": "reason", "general": "chat", "recall": "recall"}
MODEL_STAGES = ("pretrain", "midtrain", "sparse")
TASK_STAGES = ("sft", "reasoning_rl", "agentic_rl", "general_rl", "distill")
CONCURRENCY = 64
LM_BATCH = 16
LM_ROWS = 256
DRAFTS = 3
MTP_TEMPERATURE = 0.8
RETRIEVAL_PAIRS = 24
"""Needles in a row that is long enough for them."""
MTP_PROMPT, MTP_TOKENS = 96, 64
MTP_CAPACITY = MTP_PROMPT + MTP_TOKENS + DRAFTS + 2
WORKER = "arcforge.pipeline.evaluation_worker"
POLL_SECONDS = 0.1
EXIT_SECONDS = 30.0


def run_evaluation(work: Workspace) -> dict[str, float]:
    """Every capability on every stage's checkpoint, on held-out test tasks; one file per checkpoint, so it resumes.

    With several threads, checkpoints are evaluated side by side: on small models a second process doubles the speed of
    generation and a second thread does not. UserError when one of the processes fails.
    """
    pending = [stage for stage in (*TASK_STAGES, *MODEL_STAGES) if not part(work, stage).exists()]
    workers = min(work.recipe.run.threads, len(pending))
    if workers > 1:
        write_parts(work, pending, workers)
    else:
        for stage in pending:
            write_part(work, stage)
    results: dict[str, list[dict[str, Any]]] = {"cells": [], "lm": [], "retrieval": [], "mtp": []}
    stages = (*MODEL_STAGES, *TASK_STAGES)
    for stage in stages:
        for key, rows in json.loads(part(work, stage).read_text()).items():
            results[key] += rows
    atomic_write(work.folder("evaluate") / "results.json", json.dumps(results, indent=1))
    return {"checkpoints": len(stages)}


def part(work: Workspace, stage: str) -> Path:
    """Where the results of one checkpoint go."""
    return work.folder("evaluate") / "parts" / f"{stage}.json"


def write_part(work: Workspace, stage: str) -> None:
    atomic_write(part(work, stage), json.dumps(evaluate_stage(work, stage)))


def write_parts(work: Workspace, stages: Sequence[str], workers: int) -> None:
    """One process per checkpoint, `workers` at a time, the longest (those with tasks) first."""
    progress, waiting, running = Progress("evaluate", len(stages), "checkpoint"), list(stages), []
    arguments = [str(work.run.config.absolute()), str(work.run.path.absolute())]
    try:
        with LocalLauncher(work.folder("evaluate") / "logs") as launcher:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.append(waiting.pop(0))
                    launcher.start(running[-1], [sys.executable, "-m", WORKER, *arguments, running[-1]])
                time.sleep(POLL_SECONDS)
                launcher.check()
                finished = [stage for stage in running if part(work, stage).exists()]
                for stage in finished:
                    launcher.wait(stage, EXIT_SECONDS)
                    running.remove(stage)
                    progress.update(1, checkpoint=stage)
    except ComponentError as error:
        raise UserError(f"evaluate: {error.line}; the same command continues") from None
    progress.close()


def evaluate_stage(work: Workspace, stage: str) -> dict[str, list[dict[str, Any]]]:
    """What makes sense for one stage's checkpoint."""
    recipe, model = work.recipe, load_checkpoint(work.checkpoint(stage))
    row = {"checkpoint": stage}
    results: dict[str, list[dict[str, Any]]] = {}
    if stage in MODEL_STAGES:
        sparse = stage == "sparse"
        results["lm"] = [{**row, **language_model_report(work, model, sparse)}]
        results["retrieval"] = [{**row, **cell} for cell in retrieval_report(work, model, sparse)]
    if stage in (*MODEL_STAGES, "sft"):
        prompts = held_out_prompts(work, recipe.evaluate.mtp_prompts)
        drafting = reading_all(model, MTP_CAPACITY) if stage in ("pretrain", "midtrain") else model
        results["mtp"] = [{**row, **mtp_report(drafting, prompts, work.seed("evaluate"))}]
    if stage in TASK_STAGES:
        results["cells"] = task_cells(work, model, stage)
    return results


def reading_all(model: GlmMoeDsa, capacity: int) -> GlmMoeDsa:
    """The same weights with a top-k of at least `capacity`: before the sparse stage the indexer is untrained."""
    topk = max(capacity, model.config.index_topk)
    twin = GlmMoeDsa(model.config.model_copy(update={"index_topk": topk}))
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def task_cells(work: Workspace, model: GlmMoeDsa, stage: str) -> list[dict[str, Any]]:
    cells = []
    for capability, name in CAPABILITIES.items():
        made = family(name, work.recipe.run.seed)
        trajectories = evaluate_family(
            model,
            work.tokenizer,
            made,
            work.recipe.evaluate.tasks,
            seed=work.seed("evaluate"),
            title=f"evaluate {stage} {capability}",
        )
        path = work.folder("evaluate") / "rewards" / f"{stage}-{capability}.json"
        atomic_write(path, json.dumps([t.reward for t in trajectories]))
        for cell in summary(trajectories):
            label = capability if cell.domain == "all" else f"{capability}/{cell.domain}"
            cells.append({"checkpoint": stage, "capability": label, **_numbers(cell)})
    return cells


def evaluate_family(
    model: GlmMoeDsa,
    tokenizer: Tokenizer,
    made: Family,
    count: int,
    *,
    seed: int,
    temperature: float = 1.0,
    title: str,
    split: Split = "test",
    context: int = 512,
) -> list[Trajectory]:
    """`count` held-out tasks, one attempt each."""
    engine = Engine(model, EngineConfig(max_running=CONCURRENCY, max_length=context))
    progress = Progress(title, count, "task")

    async def run() -> list[Trajectory]:
        gateway = Gateway(LocalTokenEngine(engine), tokenizer, context)
        tasks = [made.task(split, index) for index in range(count)]
        try:
            return await evaluate(
                tasks,
                gateway,
                concurrency=CONCURRENCY,
                seed=seed,
                temperature=temperature,
                on_finished=lambda _: progress.update(1),
            )
        finally:
            await made.close()

    trajectories = asyncio.run(run())
    progress.close()
    return trajectories


def evaluate_checkpoint(
    checkpoint: Path, family_name: str, count: int, seed: int = 0, temperature: float = 1.0
) -> list[Cell]:
    """`arcforge eval`: one family on one checkpoint folder."""
    if count < 1:
        raise UserError(f"--count {count}: at least one task is needed")
    model, tokenizer = load_checkpoint(checkpoint), Tokenizer.load(checkpoint)
    made = family(family_name, seed)
    return summary(
        evaluate_family(model, tokenizer, made, count, seed=seed, temperature=temperature, title=f"eval {family_name}")
    )


@torch.inference_mode()
def language_model_report(work: Workspace, model: GlmMoeDsa, sparse: bool) -> dict[str, float]:
    """Bits per byte on held-out modules, over the bytes of the predicted tokens, beside an order-2 byte model's."""
    corpus, tokenizer = work.corpus, work.tokenizer
    length = work.recipe.pretrain.length
    rows = pack(tokenised(corpus.held_out, tokenizer), length, "truncate")[:LM_ROWS]
    sizes = torch.tensor([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    nats, size = 0.0, 0
    for start in range(0, len(rows), LM_BATCH):
        batch = Batch.of(rows[start : start + LM_BATCH])
        targets = batch.targets()
        wanted = targets != IGNORE
        hidden = model(batch.ids_BT, layout_of(model, batch, sparse=sparse)).hidden_BTD
        nats -= float(model.token_logprobs(hidden[wanted], targets[wanted]).sum())
        size += int(sizes[targets[wanted]].sum())
    baseline = OrderTwoBytes.fit(d.text for d in corpus.train).bits_per_byte(d.text for d in corpus.held_out)
    return {"bits_per_byte": nats / math.log(2) / size, "order2_bits_per_byte": baseline, "bytes": size}


@dataclass(frozen=True)
class Retrieval:
    """Answers to the queries of one length, row by row: 1.0 where the needle was found. chance: of a blind guess."""

    length: int
    chance: float
    found: list[float]


def retrieval_report(work: Workspace, model: GlmMoeDsa, sparse: bool) -> list[dict[str, Any]]:
    """Share of needles found by length, with dense attention and, once the indexer is trained, with DSA."""
    kinds = ("dense", "dsa") if sparse else ("dense",)
    return [retrieval_cell(kind, answers) for kind in kinds for answers in retrieval(work, model, kind == "dsa")]


def retrieval_cell(attention: str, answers: Retrieval) -> dict[str, Any]:
    """One entry of the table of retrieval by length."""
    total = len(answers.found)
    interval = wilson(round(sum(answers.found)), total)
    row = {"attention": attention, "length": answers.length, "total": total, "chance": answers.chance}
    return {**row, **interval.model_dump()}


@torch.inference_mode()
def retrieval(
    work: Workspace, model: GlmMoeDsa, sparse: bool, lengths: Sequence[int] = (), seed: int = 0
) -> list[Retrieval]:
    """What the model finds in the evaluation rows of each length (the recipe's by default); the same rows for every model."""
    config, pieces = work.recipe.evaluate, Pieces(work.tokenizer)
    filler = filler_lines([d.text for d in work.corpus.held_out[:20]], work.tokenizer)
    results = []
    for length in lengths or config.retrieval_lengths:
        pairs = min(RETRIEVAL_PAIRS, length // 12)
        rows = evaluation_rows(pieces, length, pairs, config.retrieval_rows, filler, seed=seed)
        chance = sum(row.chance for row in rows) / len(rows)
        results.append(Retrieval(length, chance, _answers(model, packed(rows), sparse)))
    return results


def _answers(model: GlmMoeDsa, rows: PackedRows, sparse: bool) -> list[float]:
    found: list[float] = []
    for start in range(len(rows)):
        batch = Batch.of(rows[start : start + 1])
        targets = batch.targets()
        wanted = targets != IGNORE
        hidden = model(batch.ids_BT, layout_of(model, batch, sparse=sparse)).hidden_BTD[wanted]
        found += (model.lm_head(hidden).argmax(-1) == targets[wanted]).float().tolist()
    return found


def held_out_prompts(work: Workspace, count: int) -> list[list[int]]:
    """Pieces of held-out modules, MTP_PROMPT tokens each: where the modules begin, then from later places of them."""
    modules = [t.ids for t in tokenised(work.corpus.held_out, work.tokenizer)]
    apart = 2 * MTP_PROMPT
    places = range(0, max(map(len, modules), default=0), apart)
    pieces = [ids[p : p + MTP_PROMPT].tolist() for p in places for ids in modules if len(ids) - p > apart]
    return [pieces[i % len(pieces)] for i in range(count)] if pieces else []


def mtp_report(model: GlmMoeDsa, prompts: Sequence[Sequence[int]], seed: int) -> dict[str, Any]:
    """Mean acceptance length (1 + accepted / drafts) and acceptance per position, sampled at 0.8 with 3 drafts."""
    engine = Engine(model, EngineConfig(max_running=16, max_length=MTP_CAPACITY, drafts=DRAFTS))
    for i, prompt in enumerate(prompts):
        sampling = Sampling(max_tokens=MTP_TOKENS, temperature=MTP_TEMPERATURE, seed=seed + i)
        engine.add(prompt, sampling, str(i))
    while engine.has_work:
        for request_id in engine.step():
            engine.result(request_id)
    stats = engine.stats
    return {
        "acceptance_length": stats["acceptance_length"],
        "per_position": [stats[f"accepted_at_{i + 1}"] for i in range(DRAFTS)],
        "drafts": int(stats["drafts"]),
    }


def _numbers(cell: Cell) -> dict[str, Any]:
    return cell.model_dump(include={"correct", "total", "value", "low", "high", "failures"})
