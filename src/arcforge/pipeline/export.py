"""Release artefacts: BF16 and FP8 Hugging Face folders; the BF16 one is checked against transformers when installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from arcforge.core.runs import atomic_write
from arcforge.model.checkpoint import load_checkpoint
from arcforge.model.trunk import GlmMoeDsa
from arcforge.pipeline.workspace import Workspace
from arcforge.train.context import write_checkpoint

CHECK_TOKENS = 200


def run_export(work: Workspace) -> dict[str, float]:
    """Write both folders of the last checkpoint and measure what each costs in logits."""
    folder = work.folder("export")
    model = load_checkpoint(work.checkpoint("distill"))
    report: dict[str, float] = {}
    for dtype in ("bfloat16", "fp8"):
        write_checkpoint(model, work.tokenizer, folder / dtype, dtype)
        report[f"{dtype}_megabytes"] = sum(f.stat().st_size for f in (folder / dtype).iterdir()) / 1e6
        report[f"{dtype}_logprob_gap"] = logprob_gap(work, load_checkpoint(folder / dtype), model)
    report |= transformers_check(folder / "bfloat16", held_out_ids(work))
    atomic_write(folder / "checks.json", json.dumps(report, indent=1))
    return report


def held_out_ids(work: Workspace) -> torch.Tensor:
    """int64 [1, CHECK_TOKENS]: real text, longer than top-k, so that selection matters."""
    ids = [i for d in work.corpus.held_out for i in work.tokenizer.encode(d.text[:4000])]
    return torch.tensor([ids[:CHECK_TOKENS]])


@torch.inference_mode()
def logprob_gap(work: Workspace, model: GlmMoeDsa, reference: GlmMoeDsa) -> float:
    """Mean absolute difference of next-token log-probabilities on held-out text."""
    ids = held_out_ids(work)
    rows = [
        m.lm_head(m(ids, m.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD).log_softmax(-1)
        for m in (model, reference)
    ]
    chosen = [row[0, :-1].gather(1, ids[0, 1:, None]) for row in rows]
    return float((chosen[0] - chosen[1]).abs().mean())


@torch.inference_mode()
def transformers_check(folder: Path, ids: torch.Tensor) -> dict[str, float]:
    """Our loader against transformers' on the same BF16 weights, computed in float32; {} without the `hf` extra.

    logit_gap: largest difference of any logit, with ties of index scores broken as ours are (lowest index first).
    positions_as_shipped: share of positions that agree to 1e-3 when transformers breaks ties in its own, unspecified way:
    an indexer of few heads gives many keys the score 0, and which of them a position reads is then arbitrary.
    """
    try:
        from transformers import GlmMoeDsaForCausalLM
        from transformers.utils import logging
    except ImportError:
        return {}
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    oracle = GlmMoeDsaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = load_checkpoint(folder)
    ours = model.lm_head(model(ids, model.layout(torch.zeros_like(ids), sparse=True)).hidden_BTD)
    with ties_to_the_lowest_index():
        gap = (ours - oracle(ids).logits).abs().max()
    shipped = (ours - oracle(ids).logits).abs().amax(-1)
    return {
        "transformers_logit_gap": float(gap),
        "transformers_positions_as_shipped": float((shipped < 1e-3).float().mean()),
    }


@contextmanager
def ties_to_the_lowest_index() -> Iterator[None]:
    """Within it, Tensor.topk over the last dimension is stable."""

    def stable(tensor: torch.Tensor, k: int, dim: int = -1, **_: object) -> Sorted:
        values, indices = tensor.sort(dim=dim, descending=True, stable=True)
        return Sorted(values.narrow(dim, 0, k), indices.narrow(dim, 0, k))

    with patch.object(torch.Tensor, "topk", stable):
        yield


class Sorted(NamedTuple):
    values: torch.Tensor
    indices: torch.Tensor
