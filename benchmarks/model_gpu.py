"""Training of the model on a GPU beside transformers' GlmMoeDsaForCausalLM: the same weights, the same inputs, one run.

    python benchmarks/model_gpu.py [--sizes 20M 300M] [--lengths 2048 8192] [--repeats 5] [--out FILE]

The contenders are those of benchmarks/model.py; what transformers ships copies the index keys once per query in a batch of several
rows, so one row is used. A training step is forward, next-token loss and backward. float32 uses TF32 for products; bfloat16 is
autocast over float32 weights. Losses and gradient norms are compared first, in float32 without TF32. Times are of synchronised
steps, medians after two that do not count; memory is the peak above weights and gradients. What does not fit is a row that says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from arcforge.model.checkpoint import save_checkpoint
from arcforge.model.config import ModelConfig
from arcforge.model.counts import count
from arcforge.model.initialise import new_model
from arcforge.view.table import table
from model import COMMON, SIZES, TOLERANCE, gradient_norm, load, steps_of

LARGE: dict[str, dict[str, int]] = {
    "20M": SIZES["20M"],
    "300M": {
        "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16, "qk_nope_head_dim": 64, "v_head_dim": 64,
        "q_lora_rank": 512, "kv_lora_rank": 256, "intermediate_size": 4096, "moe_intermediate_size": 512, "index_n_heads": 16,
    },
}  # fmt: skip
CONTENDERS = ("arcforge", "shipped")
Figures = dict[str, Any]


def config_of(size: str, longest: int) -> ModelConfig:
    changes = {"max_position_embeddings": longest, "index_topk": 512, "index_head_dim": 64, "qk_rope_head_dim": 32}
    return ModelConfig.model_validate({**COMMON, **LARGE[size], **changes})


def measured(contender: str, folder: Path, length: int, dtype: str, repeats: int) -> Figures:
    """Median seconds of a training step, and MB at its peak."""
    gc.collect()
    torch.cuda.empty_cache()
    try:
        model = load(contender, folder).to("cuda")
        ids_BT = torch.randint(0, 2048, (1, length), generator=torch.Generator().manual_seed(0)).cuda()
        step, seconds = steps_of(contender, model, ids_BT)[1], []
        for repeat in range(repeats + 2):
            if repeat == 2:
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16, enabled=dtype == "bfloat16"):
                step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return {
            "seconds": statistics.median(seconds[2:]),
            "megabytes": (torch.cuda.max_memory_allocated() - held) / 1e6,
        }
    except torch.cuda.OutOfMemoryError:
        return {"problem": "out of memory"}
    except Exception as error:
        return {"problem": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}


def compare(folder: Path, length: int) -> str:
    """ "" when loss and gradient norm agree, else both."""
    torch.set_float32_matmul_precision("highest")
    found = {}
    for name in CONTENDERS:
        model = load(name, folder).to("cuda")
        ids_BT = torch.randint(0, 2048, (1, length), generator=torch.Generator().manual_seed(0)).cuda()
        found[name] = (float(steps_of(name, model, ids_BT)[1]()), gradient_norm(model))
    torch.set_float32_matmul_precision("high")
    (loss, norm), (other_loss, other_norm) = found.values()
    near = abs(other_loss - loss) <= TOLERANCE and abs(other_norm - norm) <= TOLERANCE * norm
    return "" if near else f"{found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=LARGE, default=list(LARGE))
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 8192])
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device; benchmarks/model.py measures CPUs")
    device, rows, lines = torch.cuda.get_device_name(), [], []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model = new_model(config_of(size, max(arguments.lengths)), seed=0)
            parameters = count(model.config).total
            save_checkpoint(model, folder, "float32")
            difference = compare(folder, 1024)
            if difference:
                raise SystemExit(f"{size}: the contenders compute something else: {difference}; nothing was timed")
            for length in arguments.lengths:
                for dtype in arguments.dtypes:
                    figures = {c: measured(c, folder, length, dtype, arguments.repeats) for c in CONTENDERS}
                    rows.append({"size": size, "parameters": parameters, "length": length, "dtype": dtype, **figures})
                    lines.append(line(rows[-1]))
                    print(" ".join(lines[-1]), flush=True)
    head = [
        "size, tokens, dtype",
        "arcforge tokens/s",
        "transformers tokens/s",
        "ratio",
        "arcforge MB",
        "transformers MB",
    ]
    print(f"\n{device}, torch {torch.__version__}\n\n{table(head, lines)}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"device": device, "torch": torch.__version__, "rows": rows}, indent=1))


def line(row: Figures) -> list[str]:
    ours, theirs = (row[name] for name in CONTENDERS)
    rates = [
        ("problem" in one and one["problem"]) or f"{row['length'] / one['seconds']:,.0f}" for one in (ours, theirs)
    ]
    whole = "problem" not in ours and "problem" not in theirs
    memory = ["" if "problem" in one else f"{one['megabytes']:,.0f}" for one in (ours, theirs)]
    ratio = f"{theirs['seconds'] / ours['seconds']:.2f}" if whole else ""
    return [f"{row['size']} {row['length']} {row['dtype']}", *rates, ratio, *memory]


if __name__ == "__main__":
    main()
