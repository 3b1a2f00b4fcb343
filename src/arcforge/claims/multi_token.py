"""Three shared-parameter MTP training steps against one (GLM-5 report, section 2.1): how many drafted tokens are accepted.

Three pretraining arms from scratch, same seed and rows: three steps, one step on as many tokens, and one step on as many
more tokens as the first arm's CPU time pays for.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from arcforge.claims.markdown import Result, plain, sentences, table
from arcforge.core.errors import UserError
from arcforge.core.metrics import JsonLines
from arcforge.core.runs import atomic_write, read_jsonl
from arcforge.evals.stats import bootstrap_mean, paired_difference
from arcforge.pipeline.evaluate import MTP_CAPACITY, held_out_prompts, language_model_report, mtp_report
from arcforge.pipeline.recipe import RecordConfig
from arcforge.pipeline.workspace import Workspace
from arcforge.train.context import Context
from arcforge.train.pretrain import pretrain

GROUP = 16
TARGET = (
    "three shared MTP steps give a longer acceptance than one, at equal tokens and at equal CPU (intervals above 0)"
)

Prompts = Sequence[Sequence[int]]


def compare(work: Workspace, record: RecordConfig, folder: Path) -> Result:
    """Acceptance length of each arm, sampled at temperature 0.8 with 3 drafts on held-out text, and its differences.

    Intervals are bootstraps over groups of GROUP prompts. A finished arm is kept in `folder`; one that was killed starts
    afresh, because its CPU time would not be known. UserError when no held-out module is long enough.
    """
    prompts = held_out_prompts(work, work.recipe.evaluate.mtp_prompts)
    if not prompts:
        raise UserError("multi_token: no held-out module is long enough to draft from; set data.megabytes higher")
    tokens = work.recipe.pretrain.tokens
    three = arm(work, folder / "three_steps", 3, tokens, prompts)
    one = arm(work, folder / "one_step", 1, tokens, prompts)
    ratio = three["cpu_seconds"] / one["cpu_seconds"]
    longer = arm(work, folder / "one_step_equal_cpu", 1, round(tokens * ratio), prompts)
    differences = [
        {"equal": equal, **paired_difference(other["groups"], three["groups"]).model_dump()}
        for equal, other in (("tokens", one), ("CPU", longer))
    ]
    return {
        "rows": [three, one, longer],
        "differences": differences,
        "target": TARGET,
        "held": all(row["low"] > 0 for row in differences),
        "says": [_said(row) for row in differences],
    }


def arm(work: Workspace, folder: Path, mtp_steps: int, tokens: int, prompts: Prompts) -> dict[str, Any]:
    """Pretrain and measure one arm, unless it was finished before. cpu_seconds: of this process, in training steps."""
    path = folder / "arm.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        atomic_write(path, json.dumps(_measured(work, folder, mtp_steps, tokens, prompts)))
        shutil.rmtree(folder / "trainer", ignore_errors=True)
    return json.loads(path.read_text())


def _measured(work: Workspace, folder: Path, mtp_steps: int, tokens: int, prompts: Prompts) -> dict[str, Any]:
    config = work.recipe.pretrain.model_copy(update={"mtp_steps": mtp_steps, "tokens": tokens})
    # Drafting reads every key: the indexer, which would choose some, is trained only after mid-training.
    topk = max(work.recipe.model.index_topk, MTP_CAPACITY)
    sink, seed = JsonLines(folder / "metrics.jsonl"), work.seed("pretrain")
    context = Context(folder, work.tokenizer, sink, seed, save_seconds=math.inf)
    torch.manual_seed(seed)
    model = pretrain(config, work.recipe.model.model_copy(update={"index_topk": topk}), work.corpus, context).eval()
    sink.close()
    reports = [
        mtp_report(model, prompts[start : start + GROUP], work.seed("evaluate") + start)
        for start in range(0, len(prompts), GROUP)
    ]
    groups = [report["acceptance_length"] for report in reports]
    places = zip(*(report["per_position"] for report in reports), strict=True)
    return {
        "arm": folder.name,
        "mtp_steps": mtp_steps,
        "tokens": config.steps * config.batch_tokens,
        "cpu_seconds": sum(row["cpu_seconds"] for row in read_jsonl(folder / "metrics.jsonl")),
        "bits_per_byte": language_model_report(work, model, sparse=False)["bits_per_byte"],
        **bootstrap_mean(groups).model_dump(),
        "per_position": [sum(place) / len(reports) for place in places],
        "prompts": len(prompts),
        "groups": groups,
    }


def markdown(results: Mapping[str, Result]) -> str:
    """The arms and the differences of every seed, and what they say."""
    arms = [
        [
            f"{seed} {row['arm'].replace('_', ' ')}",
            f"{row['tokens']:,}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['bits_per_byte']:.3f}",
            plain(row),
            *(f"{share:.3f}" for share in row["per_position"]),
        ]
        for seed, result in results.items()
        for row in result["rows"]
    ]
    drafts = [f"draft {place + 1}" for place in range(len(arms[0]) - 5)]
    differences = [[seed, d["equal"], plain(d, signed=True)] for seed, r in results.items() for d in r["differences"]]
    return "\n\n".join(
        [
            table(["seed, arm", "tokens", "CPU s", "bits per byte", "acceptance length", *drafts], arms),
            table(["seed", "at equal", "three steps minus one, tokens"], differences),
            sentences(results),
        ]
    )


def _said(row: Mapping[str, Any]) -> str:
    what = f"at equal {row['equal']}: {plain(row, signed=True)} tokens"
    if row["low"] > 0:
        return f"Three steps are accepted for longer than one {what}, as in the report."
    if row["high"] < 0:
        return f"Three steps are accepted for shorter than one {what}; this is against the report."
    return f"Three steps are not shown to be accepted for longer than one {what}."
