"""Time and memory of one attention layer of each kind, forward and backward, by length of the row.

    python benchmarks/attention.py [--lengths 512 1024 ... 16384] [--topk 512] [--repeats 3] [--threads 2] [--out FILE]

dense: all keys. masked: an indexer chooses top-k keys, the others are masked in dense attention. sparse: the chosen keys are
gathered, and nothing of the size of the row squared but the indexer's scores, in chunks, exists. window: the last top-k
keys. gdn, simple_gdn: a state instead of keys. Outputs of masked and sparse are compared before anything is timed. Repeats
are interleaved; figures are medians. The last lines say from which length on gathering pays, for several top-k.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peak import peak_megabytes

from arcforge.model import attention
from arcforge.model.config import ModelConfig
from arcforge.model.initialise import new_model
from arcforge.view.table import table

SIZES: dict[str, Any] = {
    "vocab_size": 64, "num_hidden_layers": 1, "num_nextn_predict_layers": 0, "hidden_size": 256, "num_attention_heads": 8,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 48, "q_lora_rank": 160, "kv_lora_rank": 64, "index_n_heads": 4,
    "index_head_dim": 32,
}  # fmt: skip
KINDS = ("dense", "masked", "sparse", "window", "gdn", "simple_gdn")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
CROSSING = (64, 128, 256, 512)
NEVER = 10**9
Step = Callable[[], torch.Tensor]


def prepared(kind: str, length: int, topk: int, threads: int) -> Step:
    """Forward and backward of one layer on fixed input; returns its output."""
    torch.set_num_threads(threads)
    kinds = {"window": "window", "gdn": "gdn", "simple_gdn": "simple_gdn"}
    model = new_model(
        ModelConfig(
            **SIZES,
            index_topk=topk,
            attention_types=(kinds.get(kind, "full"),),
            sliding_window=topk if kind == "window" else 0,
        ),
        seed=0,
    )
    layer = model.layers[0].self_attn
    generator = torch.Generator().manual_seed(length)
    x_BTD = torch.randn(1, length, SIZES["hidden_size"], generator=generator).requires_grad_()
    upstream_BTD = torch.randn(x_BTD.shape, generator=generator)
    documents_BT = torch.zeros(1, length, dtype=torch.long)

    def step() -> torch.Tensor:
        # Which form a sparse layer takes is decided by length; here both are wanted at every length.
        attention.GATHER_FROM, attention.GATHER_RATIO = (0, 0) if kind == "sparse" else (NEVER, 0)
        out_BTD = layer(x_BTD, model.layout(documents_BT, sparse=kind in ("masked", "sparse"))).out_BTD
        out_BTD.backward(upstream_BTD)
        return out_BTD.detach()

    return step


def compare(steps: dict[str, Step]) -> None:
    one, other = steps["masked"](), steps["sparse"]()
    if not torch.allclose(one, other, atol=1e-4):
        raise SystemExit(f"masked and sparse differ by {float((one - other).abs().max()):.2g}; nothing was timed")


def medians(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for repeat in range(repeats + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat:
                seconds[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def measure(length: int, topk: int, repeats: int, threads: int) -> dict[str, Any]:
    steps = {kind: prepared(kind, length, topk, threads) for kind in KINDS}
    compare(steps)
    seconds = medians(steps, repeats)
    peaks = {kind: peak_megabytes(prepared, kind, length, topk, threads) for kind in KINDS}
    return {"length": length, "seconds": seconds, "peak_megabytes": peaks}


def crossing(topk: int, lengths: list[int], repeats: int, threads: int) -> dict[str, Any]:
    """masked / sparse by length: above 1 gathering pays."""
    ratios = {}
    for length in lengths:
        if length > topk:
            seconds = medians({kind: prepared(kind, length, topk, threads) for kind in ("masked", "sparse")}, repeats)
            ratios[length] = seconds["masked"] / seconds["sparse"]
    return {"topk": topk, "masked_over_sparse": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--topk", type=int, default=512, help="keys that sparse attention and the window read")
    parser.add_argument("--repeats", type=int, default=3, help="counted repeats of each measurement")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    rows = []
    for length in arguments.lengths:
        rows.append(measure(length, arguments.topk, arguments.repeats, arguments.threads))
        print(f"{length} tokens measured", flush=True)
    crossings = [crossing(k, arguments.lengths, arguments.repeats, arguments.threads) for k in CROSSING]
    lines = [
        [f"{row['length']:,}", *(f"{1000 * row['seconds'][k]:,.0f}" for k in KINDS)]
        + [f"{row['peak_megabytes'][k]:,.0f}" for k in KINDS]
        for row in rows
    ]
    print(f"\ntop-k and window {arguments.topk}, {arguments.threads} threads, medians of {arguments.repeats}\n")
    print(table(["tokens", *(f"{k} ms" for k in KINDS), *(f"{k} MB" for k in KINDS)], lines))
    print("\nmasked / sparse time by length\n")
    print(
        table(
            ["top-k", *map(str, arguments.lengths)],
            [
                [str(c["topk"]), *(f"{c['masked_over_sparse'].get(n, float('nan')):.2f}" for n in arguments.lengths)]
                for c in crossings
            ],
        )
    )
    if arguments.out:
        arguments.out.write_text(
            json.dumps({"threads": arguments.threads, "rows": rows, "crossings": crossings}, indent=1)
        )


if __name__ == "__main__":
    main()
