"""Release artefacts: BF16 and FP8 Hugging Face folders; the BF16 one is checked against transformers when installed."""

from __future__ import annotations

import json
from pathlib import Path

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

    logit_gap: largest difference where every key is visible to the selection (the first index_topk positions).
    positions_agreeing: share of later positions that agree to 1e-3; there the two may break ties of equal index scores
    differently (ours: lowest index first), which changes what a position reads.
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
    gaps = (ours - oracle(ids).logits).abs().amax(-1)[0]
    topk = model.config.index_topk
    return {
        "transformers_logit_gap": float(gaps[:topk].max()),
        "transformers_positions_agreeing": float((gaps[topk:] < 1e-3).float().mean()),
    }
