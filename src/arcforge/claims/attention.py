"""Cheaper attention against DSA (GLM-5 report, section 2.1.2): which of them still finds what stands far away.

All begin at the mid-trained checkpoint, and a window is as wide as index_topk. Half of the layers or more are exchanged: by
windows in turn, in both orders; by windows in the layers that a beam search finds; by Gated DeltaNet or SimpleGDN in those
same layers. Each arm trains on the rows, lengths and tokens of the sparse stage.
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
from arcforge.model.config import AttentionType
from arcforge.model.pattern import Pattern, search_pattern
from arcforge.model.specs import matrix_specs
from arcforge.model.trunk import GlmMoeDsa
from arcforge.model.variants import converted
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

TARGET = "DSA finds more needles at the greatest length than every other attention (intervals above 0)"
ALSO = (("windows_searched", "full_first"), ("windows_searched", "windows_first"), ("simple_gdn", "gdn"))
"""Pairs of which the report found the first one better."""
SEARCH_SEED = 1
"""Of the rows that the search scores patterns on; the others are of seed 0."""
Types = tuple[AttentionType, ...]


def compare(work: Workspace, record: RecordConfig, folder: Path) -> Result:
    """Retrieval by length before and after training with each attention, beside the seed's dense and DSA rows.

    Training goes on where it was killed; its states lie in `folder`.
    """
    window, cells, last = work.recipe.model.index_topk, [], {}

    def measure(checkpoint: str, attention: str, model: GlmMoeDsa, sparse: bool = False) -> None:
        answers = retrieval(work, model, sparse)
        cells.extend({"checkpoint": checkpoint, **retrieval_cell(attention, a)} for a in answers)
        last[attention] = max(answers, key=lambda a: a.length)

    middle = load_checkpoint(work.checkpoint("midtrain"))
    patterns = searched(work, middle, window)
    arms = arms_of(work.recipe.model.num_hidden_layers, patterns[0])
    measure("midtrain", "dense", middle)
    for arm, types in arms.items():
        measure("midtrain", arm, exchanged(middle, types, window))
    sparse = load_checkpoint(work.checkpoint("sparse"))
    measure("trained", "dense", sparse)
    measure("trained", "dsa", sparse, sparse=True)
    for arm, types in arms.items():
        measure("trained", arm, adapted(work, types, window, folder / arm))
        shutil.rmtree(folder / arm / "trainer", ignore_errors=True)
    pairs = [("dsa", arm) for arm in arms]
    differences = [difference(last, *pair) for pair in (*pairs, *ALSO)]
    return {
        "window": window,
        "tokens": (work.recipe.sparse.warmup_steps + work.recipe.sparse.steps) * work.recipe.sparse.batch_tokens,
        "types": arms,
        "patterns": [[pattern.text(work.recipe.model.num_hidden_layers), pattern.score] for pattern in patterns],
        "rows": cells,
        "differences": differences,
        "target": TARGET,
        "held": all(row["low"] > 0 for row in differences[: len(pairs)]),
        "says": [_said(row) for row in differences],
    }


def searched(work: Workspace, model: GlmMoeDsa, window: int) -> list[Pattern]:
    """Patterns of windows in half of the layers, rounded up, best first, scored without training at half of the greatest
    length (report: by RULER at 16K for a model of 128K)."""
    layers, length = work.recipe.model.num_hidden_layers, max(work.recipe.evaluate.retrieval_lengths) // 2

    def score(windowed: tuple[int, ...]) -> float:
        types: Types = tuple("window" if layer in windowed else "full" for layer in range(layers))
        (answers,) = retrieval(work, exchanged(model, types, window), False, (length,), SEARCH_SEED)
        return sum(answers.found) / len(answers.found)

    return search_pattern(layers, score, (layers + 1) // 2)


def arms_of(layers: int, best: Pattern) -> dict[str, Types]:
    """The attention of every layer, by arm."""

    def with_(kind: AttentionType, chosen: Sequence[int]) -> Types:
        return tuple(kind if layer in chosen else "full" for layer in range(layers))

    return {
        "windows_first": with_("window", range(0, layers, 2)),
        "full_first": with_("window", range(1, layers, 2)),
        "windows_searched": with_("window", best.layers),
        "gdn": with_("gdn", best.layers),
        "simple_gdn": with_("simple_gdn", best.layers),
    }


def exchanged(model: GlmMoeDsa, types: Types, window: int) -> GlmMoeDsa:
    return converted(model, types, window if "window" in types else 0)


def adapted(work: Workspace, types: Types, window: int, folder: Path) -> GlmMoeDsa:
    """The mid-trained model after training with its new attention: language modelling on the sparse stage's own rows, first
    at the warm-up's length, then at the adaptation's, at the last rate of mid-training."""
    sparse, data = work.recipe.sparse, work.recipe.midtrain
    model = exchanged(read_checkpoint(work.checkpoint("midtrain")), types, window)
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


def difference(found: Mapping[str, Retrieval], better: str, worse: str) -> dict[str, Any]:
    """Paired, of the same needles; `better` is the one that the report found better."""
    interval = paired_difference(found[worse].found, found[better].found)
    return {"better": better, "worse": worse, "length": found[better].length, **interval.model_dump()}


def markdown(results: Mapping[str, Result]) -> str:
    """A table of retrieval per seed, the differences, and what they say."""
    parts = []
    for seed, result in results.items():
        patterns = ", ".join(f"{text} {100 * score:.1f}" for text, score in result["patterns"])
        parts.append(
            f"Seed {seed}: window and top-k {result['window']}, {result['tokens']:,} tokens of training after "
            f"mid-training; patterns of windows by the search (S window, F full, per cent): {patterns}. Needles found by "
            f"length, per cent.\n\n{by_length(result['rows'])}"
        )
    rows = [
        [seed, d["better"], d["worse"], d["length"], points(d)] for seed, r in results.items() for d in r["differences"]
    ]
    parts.append(table(["seed", "attention", "less", "length", "difference, points"], rows))
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
    better, worse = (row[key].replace("_", " ") for key in ("better", "worse"))
    where = f"than {worse} at {row['length']:,} tokens: {points(row)} points"
    if row["low"] > 0:
        return f"{better} finds more {where}, as in the report."
    if row["high"] < 0:
        return f"{better} finds fewer {where}; this is against the report."
    return f"{better} is not shown to find more {where}."
