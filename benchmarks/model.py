"""Speed and memory of the model beside transformers' GlmMoeDsaForCausalLM: the same weights, the same inputs, one run.

    python benchmarks/model.py [--sizes 1M 5M 20M] [--repeats 5] [--threads 2] [--out FILE]

Three contenders: ours; transformers as shipped; transformers with one line of its indexer mended (as shipped, a batch of
several rows copies the index keys once per query). A forward computes all logits; a training step is forward, next-token loss
and backward, without an optimizer. Repeats are interleaved, ratios are of medians. Before anything is timed, losses and
gradients of the contenders are compared; a difference ends the run. Memory is measured in processes of its own: the peak of
one training step above weights and gradients.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peak import peak_megabytes
from transformers import GlmMoeDsaForCausalLM
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as theirs
from transformers.utils import logging

from arcforge.model.checkpoint import load_checkpoint, save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count, training_flops_per_token
from arcforge.model.initialise import new_model
from arcforge.view.table import table

COMMON = {
    "vocab_size": 2048, "n_routed_experts": 16, "num_experts_per_tok": 2, "index_topk": 64, "index_head_dim": 32,
    "qk_rope_head_dim": 16, "num_nextn_predict_layers": 0, "max_position_embeddings": 4096,
}  # fmt: skip
SIZES: dict[str, dict[str, int]] = {
    "1M": {
        "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "qk_nope_head_dim": 32, "v_head_dim": 32,
        "q_lora_rank": 96, "kv_lora_rank": 48, "intermediate_size": 384, "moe_intermediate_size": 96, "index_n_heads": 4,
    },
    "5M": {
        "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "qk_nope_head_dim": 32, "v_head_dim": 48,
        "q_lora_rank": 160, "kv_lora_rank": 64, "intermediate_size": 1024, "moe_intermediate_size": 224, "index_n_heads": 4,
    },
    "20M": {
        "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "qk_nope_head_dim": 48, "v_head_dim": 64,
        "q_lora_rank": 256, "kv_lora_rank": 128, "intermediate_size": 1536, "moe_intermediate_size": 384, "index_n_heads": 8,
    },
}  # fmt: skip
SHAPES = ((4, 512), (1, 2048))
CONTENDERS = ("arcforge", "shipped", "mended")
SHIPPED_LINE = "scores = torch.matmul(q.float(), k.transpose(-1, -2).float().unsqueeze(1)) * self.softmax_scale"
MENDED_LINE = "scores = (q.float().flatten(1, 2) @ k.transpose(-1, -2).float()).unflatten(1, (-1, self.n_heads)) * self.softmax_scale"
TOLERANCE = 2e-3
"""Relative, of the gradient's norm: sparse selections of near ties may differ in single keys."""
Step = Callable[[], torch.Tensor]


def mend(model: torch.nn.Module) -> None:
    """Give this model's indexers the shipped forward with the one line replaced."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(theirs.GlmMoeDsaIndexer.forward)))
    if SHIPPED_LINE not in source:
        raise SystemExit("transformers' indexer has changed: the line to mend is not there; update benchmarks/model.py")
    source = "\n".join(line for line in source.splitlines() if not line.startswith("@"))
    names = dict(vars(theirs))
    exec(compile(source.replace(SHIPPED_LINE, MENDED_LINE), "mended indexer", "exec"), names)
    mended = torch.no_grad()(names["forward"])
    for module in model.modules():
        if isinstance(module, theirs.GlmMoeDsaIndexer):
            module.forward = mended.__get__(module)


def load(contender: str, folder: Path) -> torch.nn.Module:
    if contender == "arcforge":
        return load_checkpoint(folder)
    logging.disable_progress_bar()
    model = GlmMoeDsaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if contender == "mended":
        mend(model)
    return model


def steps_of(contender: str, model: torch.nn.Module, ids_BT: torch.Tensor) -> tuple[Step, Step]:
    """(forward, training step) on these inputs; both return something small to look at."""
    documents_BT, targets_N = torch.zeros_like(ids_BT), ids_BT[:, 1:].flatten()

    @torch.no_grad()
    def forward() -> torch.Tensor:
        if contender == "arcforge":
            return model.lm_head(model(ids_BT, model.layout(documents_BT, sparse=True)).hidden_BTD)
        return model(ids_BT, use_cache=False).logits

    def train() -> torch.Tensor:
        model.zero_grad(set_to_none=False)
        if contender == "arcforge":
            hidden_BTD = model(ids_BT, model.layout(documents_BT, sparse=True)).hidden_BTD
            loss = -model.token_logprobs(hidden_BTD[:, :-1].flatten(0, 1), targets_N).mean()
        else:
            loss = model(ids_BT, labels=ids_BT, use_cache=False).loss
        loss.backward()
        return loss.detach()

    return forward, train


def gradient_norm(model: torch.nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())


def compare(models: dict[str, torch.nn.Module], ids_BT: torch.Tensor) -> None:
    """Losses and gradient norms of all contenders are the same, or the run ends."""
    found = {}
    for name, model in models.items():
        found[name] = (float(steps_of(name, model, ids_BT)[1]()), gradient_norm(model))
    loss, norm = found["arcforge"]
    for name, (other_loss, other_norm) in found.items():
        if abs(other_loss - loss) > TOLERANCE or abs(other_norm - norm) > TOLERANCE * norm:
            raise SystemExit(f"{name} computes something else: loss and gradient norm {found}; nothing was timed")


def medians(models: dict[str, torch.nn.Module], ids_BT: torch.Tensor, repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of (forward, training step) per contender; repeats are interleaved after one uncounted round."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            for kind, step in enumerate(steps_of(name, model, ids_BT)):
                start = time.perf_counter()
                step()
                if repeat:
                    seconds[name][kind].append(time.perf_counter() - start)
    return {name: (statistics.median(a), statistics.median(b)) for name, (a, b) in seconds.items()}


def gemm_peak(repeats: int = 7) -> float:
    """GFLOP/s of a large square float32 product, the best of some."""
    a, b, best = torch.randn(1536, 1536), torch.randn(1536, 1536), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 1536**3 / best / 1e9


def prepared(contender: str, folder: Path, shape: tuple[int, int], threads: int) -> Step:
    """A training step for the measurement of memory: gradients, thread pools and code are there before it."""
    torch.set_num_threads(threads)
    model = load(contender, folder)
    steps_of(contender, model, inputs(1, 80))[1]()
    return steps_of(contender, model, inputs(*shape))[1]


def inputs(rows: int, length: int) -> torch.Tensor:
    return torch.randint(
        1, COMMON["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(rows * length)
    )


def measure(size: str, repeats: int, threads: int) -> list[dict[str, Any]]:
    config = ModelConfig.model_validate({**COMMON, **SIZES[size]})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_checkpoint(new_model(config, seed=0), folder, "float32")
        models = {name: load(name, folder) for name in CONTENDERS}
        rows = []
        for shape in SHAPES:
            compare(models, inputs(*shape))
            seconds = medians(models, inputs(*shape), repeats)
            peaks = {name: peak_megabytes(prepared, name, folder, shape, threads) for name in CONTENDERS}
            tokens, flops = shape[0] * shape[1], training_flops_per_token(config, shape[1])
            rows.append(
                {
                    "size": size,
                    "active": count(config).active,
                    "shape": f"{shape[0]}x{shape[1]}",
                    "tokens_per_second": {n: [tokens / s for s in pair] for n, pair in seconds.items()},
                    "training_gflops": {n: tokens * flops / pair[1] / 1e9 for n, pair in seconds.items()},
                    "peak_megabytes": peaks,
                }
            )
            print(line_table(rows[-1:]).splitlines()[-1], flush=True)
        return rows


def line_table(rows: list[dict[str, Any]]) -> str:
    header = ["size, shape"]
    for kind in ("forward", "train"):
        header += [f"{kind} tok/s", "/ shipped", "/ mended"]
    header += ["GFLOP/s", "mended's", "peak MB", "shipped's", "mended's"]
    lines = []
    for row in rows:
        line = [f"{row['size']} {row['shape']}"]
        for kind in (0, 1):
            ours, shipped, mended = (row["tokens_per_second"][name][kind] for name in CONTENDERS)
            line += [f"{ours:,.0f}", f"{ours / shipped:.2f}", f"{ours / mended:.2f}"]
        line += [f"{row['training_gflops'][name]:.0f}" for name in ("arcforge", "mended")]
        line += [f"{row['peak_megabytes'][name]:.0f}" for name in CONTENDERS]
        lines.append(line)
    return table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5, help="counted repeats of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peak = gemm_peak()
    rows = [row for size in arguments.sizes for row in measure(size, arguments.repeats, arguments.threads)]
    print(f"\n{arguments.threads} threads, GEMM peak {peak:.0f} GFLOP/s, medians of {arguments.repeats}\n")
    print(line_table(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps({"threads": arguments.threads, "gemm_peak": peak, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
