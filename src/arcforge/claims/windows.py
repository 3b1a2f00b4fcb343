"""Interleaved sliding windows against DSA (GLM-5 report, section 2.1.1): which of them still finds what stands far away.

Both begin at the mid-trained checkpoint and read as many keys per query (the window is index_topk). Windows train on the
rows, lengths and tokens of the sparse stage; every second layer keeps its full view, in both orders.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arcforge.claims.markdown import Result, points, sentences, table
from arcforge.core.metrics import JsonLines
from arcforge.evals.stats import paired_difference
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.optim.muon import MuonAdamW, OptimizerConfig
from arcforge.pipeline.evaluate import Retrieval, retrieval, retrieval_cell
from arcforge.pipeline.recipe import RecordConfig
from arcforge.pipeline.workspace import Workspace
from arcforge.train.context import Context, read_checkpoint
from arcforge.train.freezing import trainable
from arcforge.train.loop import Plan, run
from arcforge.train.midtrain import midtrain_rows
from arcforge.train.objectives import language_modelling
from arcforge.view.table import per_cent

ORDERS = {"windows_first": 0, "full_first": 1}
"""Which of each two layers has the window."""
TARGET = "DSA finds more needles at the greatest length than interleaved windows in either order (interval above 0)"


def compare(work: Workspace, record: RecordConfig, folder: Path) -> Result:
    """Retrieval by length before and after training with windows, beside the seed's dense and DSA rows.

    Training goes on where it was killed; its states lie in `folder`.
    """
    window, cells = work.recipe.model.index_topk, []

    def measure(checkpoint: str, attention: str, model: GlmMoeDsa, sparse: bool = False) -> Retrieval:
        answers = retrieval(work, model, sparse)
        cells.extend({"checkpoint": checkpoint, **retrieval_cell(attention, a)} for a in answers)
        return max(answers, key=lambda a: a.length)

    middle = load_checkpoint(work.checkpoint("midtrain"))
    measure("midtrain", "dense", middle)
    for order, first in ORDERS.items():
        measure("midtrain", order, with_windows(middle, window, first))
    sparse = load_checkpoint(work.checkpoint("sparse"))
    measure("trained", "dense", sparse)
    dsa = measure("trained", "dsa", sparse, sparse=True)
    differences = []
    for order, first in ORDERS.items():
        found = measure("trained", order, adapted(work, window, first, folder / order))
        interval = paired_difference(found.found, dsa.found)
        differences.append({"order": order, "length": dsa.length, **interval.model_dump()})
    for order in ORDERS:
        shutil.rmtree(folder / order / "trainer", ignore_errors=True)
    return {
        "window": window,
        "tokens": (work.recipe.sparse.warmup_steps + work.recipe.sparse.steps) * work.recipe.sparse.batch_tokens,
        "rows": cells,
        "differences": differences,
        "target": TARGET,
        "held": all(row["low"] > 0 for row in differences),
        "says": [_said(row) for row in differences],
    }


def with_windows(model: GlmMoeDsa, window: int, first: int) -> GlmMoeDsa:
    """The same weights with a window in every second layer, from layer `first` on."""
    config = model.config
    windows = tuple(window if layer % 2 == first else 0 for layer in range(config.num_hidden_layers))
    result = GlmMoeDsa(ModelConfig.model_validate({**config.model_dump(), "layer_windows": windows}))
    result.load_state_dict(model.state_dict())
    return result.train(model.training)


def adapted(work: Workspace, window: int, first: int, folder: Path) -> GlmMoeDsa:
    """The mid-trained model after training with its windows: language modelling on the sparse stage's own rows, first at
    the warm-up's length, then at the adaptation's, at the last rate of mid-training."""
    sparse, data = work.recipe.sparse, work.recipe.midtrain
    model = with_windows(read_checkpoint(work.checkpoint("midtrain")), window, first)
    sink = JsonLines(folder / "metrics.jsonl")
    context = Context(folder, work.tokenizer, sink, work.seed("sparse"), work.recipe.run.save_seconds)
    specs = matrix_specs(model)
    phases = (("warmup", sparse.warmup_steps, sparse.warmup_length), ("adapt", sparse.steps, sparse.length))
    with trainable(model, specs, {"trunk"}):
        optimizer = MuonAdamW(model, specs, OptimizerConfig(lr=data.last_lr))
        for name, steps, length in phases:
            plan = Plan(f"{folder.name}-{name}", steps, max(1, sparse.batch_tokens // length), lambda step: 1.0)
            rows = midtrain_rows(data, work.corpus, context, length)
            objective = lambda batch: language_modelling(model, batch, sparse=False)  # noqa: E731
            run(plan, model, objective, optimizer, rows, context.state_file(name), sink, context.save_seconds)
    sink.close()
    return model.eval()


def markdown(results: Mapping[str, Result]) -> str:
    """A table of retrieval per seed, the differences, and what they say."""
    parts = []
    for seed, result in results.items():
        parts.append(
            f"Seed {seed}: window and top-k {result['window']}, {result['tokens']:,} tokens of training after "
            f"mid-training; needles found by length, per cent.\n\n{by_length(result['rows'])}"
        )
    rows = [[seed, d["order"], d["length"], points(d)] for seed, r in results.items() for d in r["differences"]]
    parts.append(table(["seed", "order", "length", "DSA minus windows, points"], rows))
    return "\n\n".join([*parts, sentences(results)])


def by_length(cells: Sequence[Mapping[str, Any]]) -> str:
    """Retrieval cells as a table, one line per checkpoint and attention, one column per length."""
    lengths = sorted({cell["length"] for cell in cells})
    lines = list(dict.fromkeys((cell["checkpoint"], cell["attention"]) for cell in cells))
    at = {(cell["checkpoint"], cell["attention"], cell["length"]): dict(cell) for cell in cells}
    return table(
        ["checkpoint", "attention", *map(str, lengths)],
        [[*line, *(per_cent(at.get((*line, length))) for length in lengths)] for line in lines],
    )


def _said(row: Mapping[str, Any]) -> str:
    where = f"than windows ({row['order'].replace('_', ' ')}) at {row['length']:,} tokens: {points(row)} points"
    if row["low"] > 0:
        return f"DSA finds more {where}, as in the report."
    if row["high"] < 0:
        return f"DSA finds fewer {where}; this is against the report."
    return f"DSA is not shown to find more {where}."
